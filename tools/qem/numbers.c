/* Strict numbers from the command line: the whole word must be one plain decimal number inside the limits. */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int bad_whole(const char *option, const char *text, uint64_t minimum, uint64_t maximum)
{
    return cli_usage("--%s takes a whole number from %" PRIu64 " to %" PRIu64 ", not '%s'", option, minimum, maximum,
                     text);
}

int cli_parse_u64(const char *option, const char *text, uint64_t minimum, uint64_t maximum, uint64_t *value)
{
    uint64_t sum = 0;

    if (*text == 0) return bad_whole(option, text, minimum, maximum);
    for (const char *c = text; *c != 0; c++) {
        if (*c < '0' || *c > '9') return bad_whole(option, text, minimum, maximum);
        uint64_t digit = (uint64_t)(*c - '0');
        if (sum > (UINT64_MAX - digit) / 10) return bad_whole(option, text, minimum, maximum);
        sum = sum * 10 + digit;
    }
    if (sum < minimum || sum > maximum) return bad_whole(option, text, minimum, maximum);
    *value = sum;
    return CLI_OK;
}

/* strtod would also take blanks, signs, hexadecimal, "inf" and "nan"; none of them is a sensible budget. */
int cli_parse_real(const char *option, const char *text, double minimum, bool above, double maximum, double *value)
{
    char *end = NULL;
    double number = 0;
    bool plain = *text != 0 && strspn(text, "0123456789.eE+-") == strlen(text) && *text != '-' && *text != '+';

    if (plain) {
        errno = 0;
        number = strtod(text, &end);
        plain = end != text && *end == 0 && isfinite(number) && !(errno == ERANGE && number != 0);
    }
    if (!plain || number < minimum || (above && number <= minimum) || number > maximum) {
        return cli_usage("--%s takes a number %s %g, at most %g, not '%s'", option, above ? "above" : "from", minimum,
                         maximum, text);
    }
    *value = number;
    return CLI_OK;
}
