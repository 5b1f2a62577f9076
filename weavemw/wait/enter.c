/* The only program in the image of weavemw's own containers: it executes a command of the host's.
 *
 *     enter /ABSOLUTE/COMMAND [ARGUMENT...]
 *
 * The host's root directory is mounted at /host; with it as root directory, the command finds its Python,
 * its files and Docker's socket where they always are, while Docker supervises it and keeps its log.
 *
 * Exit status: 127 if the command or /host is not found, 126 if it can't be entered or executed, 2 without arguments.
 */
#include "freestanding.h"

#define HOST "/host"

static int failed(const char *what, long error)
{
    char number[12];
    complain(what, ": ", reason(error, number));
    return status_of(error);
}

static int run(int argc, char **argv, char **environment)
{
    long error;
    if (argc < 2) {
        complain("usage: enter /ABSOLUTE/COMMAND [ARGUMENT...]: executes it with " HOST " as root directory");
        return 2;
    }
    if (argv[1][0] != '/') {
        complain(argv[1], ": not an absolute path");
        return NOT_FOUND;
    }
    error = sys(chroot, HOST);
    if (error)
        return failed("can't make " HOST " the root directory", error);
    error = sys(chdir, "/");
    if (error)
        return failed("can't change to the root directory", error);
    return failed(argv[1], sys(execve, argv[1], argv + 1, environment));
}
