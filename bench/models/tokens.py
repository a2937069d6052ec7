"""Texts as numbers: WordPiece for English, atoms and bonds for reactions."""
import re
import unicodedata

WORD = re.compile(r"[^\W_]+|[^\w\s]|_")
ATOM = re.compile(r"\[[^\]]*\]|Br|Cl|%\d\d|>>|.", re.DOTALL)


def vocabulary(path):
    """-> {piece: number}; a piece a line."""
    with open(path, encoding="utf-8") as file:
        return {line.rstrip("\n"): number for number, line in enumerate(file)}


def pieces_of_word(word, known):
    """The longest piece that is known, again and again; a word that cannot be cut so is unknown."""
    pieces, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = ("##" if start else "") + word[start:end]
            if piece in known:
                break
        else:
            return ["[UNK]"]
        pieces.append(piece)
        start = end
    return pieces


def english(text, known):
    """BERT's uncased WordPiece, with the marks of begin and end."""
    bare = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    pieces = [piece for word in WORD.findall(bare) for piece in pieces_of_word(word, known)]
    return [known[piece] for piece in ["[CLS]", *pieces, "[SEP]"]]


def reaction(smiles, known):
    """A SMILES by atoms, bonds, rings and branches, with the marks of begin and end."""
    return [known.get(piece, known["[UNK]"]) for piece in ["[CLS]", *ATOM.findall(smiles), "[SEP]"]]
