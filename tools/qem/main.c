/* qem: quantizes matrices, brings them back, and says what was lost. */
#include "cli.h"

#include <string.h>

static const cli_command commands[] = {
    { CMD_QUANTIZE, "quantize", "INPUT", 1, "make a matrix small: fit a recipe to a budget",
      "INPUT is .npy, .fvecs, .bvecs or .safetensors; the output is one .safetensors file. Of a file every 2-D\n"
      "tensor of floats is quantized and the rest passes through unchanged; --tensor NAME quantizes that one alone.\n"
      "One of --ratio, --bits and --k is the budget. With --reuse the recipe and the codebooks are the artifact's.\n\n"
      "INPUT may be a model: a directory, or its *.index.json. The output is then a directory with the same shards, an index\n"
      "and the other files. Quantized are the linear weights: 2-D tensors, but embeddings, norms, biases, routers and small\n"
      "ones; --include and --exclude choose otherwise, in files too. A run that was cut off goes on where it is started again:\n"
      "finished shards are verified and kept. qem.json in the output says what the run is.\n"
      "Several tensors share one budget: for each the error is measured at some rates, and more bits go where they take away\n"
      "more of it (relative error, NMSE, of each weight, or, with --importance, the weighted squared error).\n"
      "--uniform gives all the same rate, --dry-run prints the plan.\n\n"
      "--residual M2[:SHARE] adds a layer by method M2 for what the layers before leave over; it and the layers after it\n"
      "take SHARE (default 0.3) of what the layer before would have had. It takes the other options of the command line too\n"
      "(--dim, --codebook, --iterations, --standardize, ...) as far as M2 knows them, but not --outliers.\n"
      "--recipe FILE.json reads a recipe as --json prints it under \"recipe\" (the artifact's metadata hold it too); keys\n"
      "that are missing are at their defaults.\n"
      "--method auto tries recipes on a sample and takes the best for --ratio or --bits; --effort says how much it tries. The\n"
      "report then names the recipe picked and what was tried.\n\n"
      "Examples:\n"
      "  qem quantize weights.npy -o weights.safetensors --method pq --ratio 8\n"
      "  qem quantize model.safetensors -o small.safetensors --method hyperchr --bits 4 --codebook f16\n"
      "  qem quantize MODEL_DIRECTORY -o SMALL_DIRECTORY --method auto --bits 3\n"
      "  qem quantize weights.npy --method qet --ratio 8 --dry-run\n"
      "  qem quantize weights.npy -o weights.safetensors --method auto --bits 4 --effort 2\n"
      "  qem quantize weights.npy -o weights.safetensors --method nf --grid block:64 --bits 4.5\n"
      "  qem quantize weights.npy -o weights.safetensors --method pq --bits 4 --standardize column --outliers 0.001\n"
      "  qem quantize weights.npy -o weights.safetensors --method pq --ratio 8 --residual rtn:0.4\n"
      "  qem quantize new_rows.npy -o more.safetensors --reuse weights.safetensors\n",
      cli_quantize },
    { CMD_DEQUANTIZE, "dequantize", "FILE.safetensors|MODEL", 1, "bring a quantized matrix back",
      "To .npy: one matrix. To .safetensors: every artifact of the file is decoded under its own name and the other\n"
      "tensors pass through; --tensor NAME writes that one alone. A model's directory becomes a directory with the same\n"
      "names, types and shards.\n\n"
      "Examples:\n"
      "  qem dequantize weights.safetensors -o weights.npy\n"
      "  qem dequantize weights.safetensors -o rows.npy --rows 100:200 --dtype f16\n"
      "  qem dequantize small.safetensors -o model.safetensors --dtype bf16\n",
      cli_dequantize },
    { CMD_INSPECT, "inspect", "FILE|MODEL", 1, "say what a file holds, part by part",
      "Artifacts are read with all checksums verified.\n\n"
      "Examples:\n"
      "  qem inspect weights.safetensors\n"
      "  qem inspect weights.npy --json\n",
      cli_inspect },
    { CMD_EVALUATE, "evaluate", "ORIGINAL and ARTIFACT|DECODED", 2, "measure the error against the original",
      "The second file is an artifact or a dequantized matrix. Of files with several, the tensors of the second are compared\n"
      "with those of the same name in the first.\n\n"
      "Examples:\n"
      "  qem evaluate weights.npy weights.safetensors\n"
      "  qem evaluate weights.npy decoded.npy --json\n",
      cli_evaluate },
    { CMD_COMPARE, "compare", "INPUT", 1, "run several methods at several budgets, as a table",
      "MSE, MAE and NMSE are of the whole matrix; QT and DT are the seconds to quantize and to dequantize, QTR and\n"
      "DTR their ratios to the first method at the same budget. A budget that a method cannot meet is shown as\n"
      "infeasible.\n"
      "An option is left out for methods that do not take it: --intervals, --assign and --refine are given to hyperchr alone,\n"
      "--levels to qet, --grid to grid and nf, --cells to lopq, --dim to vector methods; --standardize, --outliers and\n"
      "--residual to all but auto.\n"
      "The default methods are those of the papers, rtn to qet. auto, which takes longer, may be named beside them: the line\n"
      "below its row says which recipe was picked.\n\n"
      "Examples:\n"
      "  qem compare weights.npy --methods pq,hyperchr,qet --ratios 2,4,8,16 --plot weights.svg\n"
      "  qem compare weights.npy --methods rtn,vq,auto --ratios 4,8\n"
      "  qem compare weights.npy --ratios 8 --repeat 5 --json\n",
      cli_compare },
    { CMD_GENERATE, "generate", "synthetic", 1, "make test data",
      "synthetic: normal(0.5, 0.16) truncated to [0, 1] with a share of outliers from uniform(-100, 100).\n\n"
      "Example:\n"
      "  qem generate synthetic -o synthetic.npy --rows 1024 --cols 128 --seed 1\n",
      cli_generate },
    { CMD_DEVICE, "device", "", 0, "say what this machine can compute with",
      "Example:\n"
      "  qem device\n",
      cli_device },
};

enum { COMMAND_COUNT = sizeof(commands) / sizeof(commands[0]) };

static void print_help(FILE *out)
{
    fputs("qem - makes a matrix of floats small within a memory budget, and brings it back.\n\n"
          "Usage: qem COMMAND [OPTION...]\n\nCommands:\n", out);
    for (int i = 0; i < COMMAND_COUNT; i++) fprintf(out, "  %-12s %s\n", commands[i].name, commands[i].summary);
    fputs("\nqem COMMAND --help tells a command's options; qem --version the version.\n\n"
          "Example:\n"
          "  qem quantize weights.npy -o weights.safetensors --method pq --ratio 8\n"
          "  qem dequantize weights.safetensors -o decoded.npy\n"
          "  qem evaluate weights.npy decoded.npy\n"
          "\nExit codes: 0 done, 1 error, 2 the command line makes no sense.\n", out);
}

static void print_command_help(FILE *out, const cli_command *command)
{
    fprintf(out, "qem %s - %s\n\nUsage: qem %s%s", command->name, command->summary, command->name,
            command->operand_count > 0 ? " " : "");
    fputs(command->id == CMD_EVALUATE ? "ORIGINAL (ARTIFACT|DECODED)" : command->operands, out);
    fprintf(out, " [OPTION...]\n\n%s\n", command->details);
    cli_print_options(out, command->id);
}

/* A full disk or a closed pipe behind stdout must not look like success. */
static int finish(int result)
{
    cli_progress_clear();
    if ((fflush(stdout) != 0 || ferror(stdout)) && result == CLI_OK) return cli_fail("cannot write to standard output");
    return result;
}

static int run_command(const cli_command *command, int argc, char **argv)
{
    cli_options options;
    int result = cli_parse_options(command, argc, argv, &options);

    if (result != CLI_OK) return result;
    if (options.help) {
        print_command_help(stdout, command);
        return CLI_OK;
    }
    return command->run(&options);
}

int main(int argc, char **argv)
{
    if (argc < 2) return cli_usage("a command is needed; see qem --help");
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_help(stdout);
        return finish(CLI_OK);
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("qem %s\n", qem_version());
        return finish(CLI_OK);
    }
    for (int i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(argv[1], commands[i].name) == 0) return finish(run_command(&commands[i], argc - 1, argv + 1));
    }
    return cli_usage("unknown command '%s'; see qem --help", argv[1]);
}
