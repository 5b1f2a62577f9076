/* The wait program: the first process of a container that is to be on the weave network.
 *
 *     w COMMAND [ARGUMENT...]
 *
 * looks the command up, waits until the interface ethwe is up and has carrier, which is the last thing that
 * attaching does, and executes the command in its own place. It needs no privilege, no file, no /proc and no C
 * library, and leaves nothing behind: the command gets the arguments, environment, signal mask and files it would
 * have had. It has no options: whatever follows its name is the command.
 *
 * While it waits, and not before, its name in /proc/PID/comm is "weave-wait": then the command was found.
 *
 * Exit status: 127 if the command is not found, 126 if it may not be executed, both at once; 128 + N when ended by
 * signal N; 125 if it can't even wait; 1 if the kernel refuses to execute what was found, as runc 1.1 has it.
 *
 * No version is compiled in: the program is installed under the hash of its content, and a release that
 * doesn't change it must not leave one more copy on every host.
 */
#include <asm/poll.h>
#include <asm/siginfo.h>
#include <asm/signal.h>
#include <linux/fcntl.h>
#include <linux/limits.h>
#include <linux/netlink.h>
#include <linux/prctl.h>
#include <linux/rtnetlink.h>
#include <linux/signalfd.h>

#include "freestanding.h"

#define INTERFACE "ethwe"
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  /* Docker's */

#define WAITING "weave-wait"

enum { CANNOT_EXECUTE = 1, CANNOT_WAIT = 125 };
enum { EXECUTE = 1 };  /* X_OK */
enum { QUIET_SECONDS = 10 };

/* <linux/if.h> and <sys/socket.h> can't be had without a C library's headers. */
enum { LINK_UP = 1 << 0, LINK_LOWER_UP = 1 << 16 };
enum { RAW_SOCKET = 3, CLOSE_ON_EXEC = 02000000, NONBLOCKING = 04000, NETLINK_FAMILY = 16 };
enum { SIGNAL_SET_BYTES = 8 };

#define SIGNAL(number) (1ULL << ((number) - 1))

/* What ends the wait: whatever would end or be given to a command. Not in it are the signals that a container
 * gets without being asked to stop, and those that only stop and continue. */
#define ENDING_SIGNALS ~(SIGNAL(SIGCHLD) | SIGNAL(SIGCONT) | SIGNAL(SIGURG) \
                         | SIGNAL(SIGTSTP) | SIGNAL(SIGTTIN) | SIGNAL(SIGTTOU))

#ifndef GO
/* Process 1 ignores signals that it has no handler for, but a blocked one stays pending and signalfd tells it:
 * so there is no handler to write, and none to reset. */
static int take_signals(__u64 *before)
{
    const __u64 signals = ENDING_SIGNALS;
    sys(rt_sigprocmask, SIG_BLOCK, &signals, before, SIGNAL_SET_BYTES);
    return (int)sys(signalfd4, -1, &signals, SIGNAL_SET_BYTES, CLOSE_ON_EXEC | NONBLOCKING);
}

/* SIGWINCH from the kernel means that a terminal was resized; from a process, that a web server is to stop. */
static void leave_if_signalled(int signals)
{
    struct signalfd_siginfo signal;
    while (sys(read, signals, &signal, sizeof signal) == sizeof signal)
        if (signal.ssi_signo != SIGWINCH || signal.ssi_code != SI_KERNEL)
            leave(128 + (int)signal.ssi_signo);
}

static int subscribe(void)
{
    const struct sockaddr_nl own = {.nl_family = NETLINK_FAMILY, .nl_groups = RTMGRP_LINK};
    int links = (int)sys(socket, NETLINK_FAMILY, RAW_SOCKET | CLOSE_ON_EXEC | NONBLOCKING, NETLINK_ROUTE);
    long error = links < 0 ? links : sys(bind, links, &own, sizeof own);
    return error < 0 ? (int)error : links;
}

static long ask(int links, __u32 sequence)
{
    const struct {
        struct nlmsghdr header;
        struct ifinfomsg link;
        struct rtattr attribute;
        char name[NLMSG_ALIGN(sizeof INTERFACE)];
    } question = {
        .header = {.nlmsg_len = sizeof question, .nlmsg_type = RTM_GETLINK, .nlmsg_flags = NLM_F_REQUEST,
                   .nlmsg_seq = sequence},
        .attribute = {.rta_len = RTA_LENGTH(sizeof INTERFACE), .rta_type = IFLA_IFNAME},
        .name = INTERFACE,
    };
    return sys(sendto, links, &question, sizeof question);
}

static int equal(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

/* Carrier is read from IFF_LOWER_UP: IFF_RUNNING can be set for a moment while the operational state is unknown. */
static int says_ready(const struct nlmsghdr *message)
{
    const struct ifinfomsg *link = NLMSG_DATA(message);
    const struct rtattr *attribute = IFLA_RTA(link);
    int left = (int)(message->nlmsg_len - NLMSG_LENGTH(sizeof *link));
    if (message->nlmsg_type != RTM_NEWLINK || left < 0 || ~link->ifi_flags & (LINK_UP | LINK_LOWER_UP))
        return 0;
    for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left))
        if (attribute->rta_type == IFLA_IFNAME && attribute->rta_len >= RTA_LENGTH(sizeof INTERFACE))
            return equal(INTERFACE, RTA_DATA(attribute));
    return 0;
}

/* Read all that is queued; 1 once the interface is ready, else 0.
 *
 * After ENOBUFS (the kernel dropped messages because the queue was full), whatever we know is stale, and
 * so are answers still in the queue: only one to a later question counts. The question must wait until
 * the queue is empty, because the kernel drops the answer too, without a word, while it is full. */
static int drain(int links, __u32 *sequence, __u32 *answered)
{
    char buffer[16384] __attribute__((aligned(NLMSG_ALIGNTO)));
    for (;;) {
        struct sockaddr_nl sender;
        __u32 sender_size = sizeof sender;
        long n = sys(recvfrom, links, buffer, sizeof buffer, 0, &sender, &sender_size);
        if (n == -ENOBUFS) {
            ++*sequence;
            continue;
        }
        if (n <= 0)
            return 0;
        if (sender.nl_pid)  /* not the kernel: anybody in the container may write to this socket */
            continue;
        __s64 left = n;
        for (struct nlmsghdr *message = (void *)buffer; NLMSG_OK(message, left); message = NLMSG_NEXT(message, left)) {
            if (says_ready(message))
                return 1;
            if (!sender.nl_groups && message->nlmsg_seq == *sequence)  /* to us alone, so it is an answer */
                *answered = *sequence;
        }
    }
}

/* A reader of stderr that went away must not end the wait: take back the SIGPIPE that writing raised. */
static void say_what_for(void)
{
    const __u64 broken_pipe = SIGNAL(SIGPIPE);
    const long at_once[2] = {0, 0};
    long n = complain("waiting for interface " INTERFACE " to be attached to the weave network "
                      "(`weave status` on the host tells more)");
    if (n == -EPIPE)
        sys(rt_sigtimedwait, &broken_pipe, 0, at_once, SIGNAL_SET_BYTES);
}

/* Subscribed first and asked second, so that nothing that happens in between is missed. */
static void wait_for_interface(int links, int signals)
{
    struct pollfd polled[] = {{links, POLLIN, 0}, {signals, POLLIN, 0}, {2, POLLOUT, 0}};
    long patience[2] = {QUIET_SECONDS, 0};  /* a timespec: ppoll leaves in it what remains of the time */
    long *limit = patience;
    int watched = 2;
    __u32 sequence = 1, answered = 0;
    while (!drain(links, &sequence, &answered)) {
        if (answered != sequence && ask(links, sequence) > 0)
            continue;
        polled[2].revents = 0;
        if (sys(ppoll, polled, watched, limit, 0, SIGNAL_SET_BYTES) == 0) {
            limit = 0;
            watched = 3;  /* speak when stderr can take it: a full pipe must not make us deaf to signals */
        }
        if (polled[2].revents) {
            watched = 2;
            say_what_for();
        }
        leave_if_signalled(signals);
    }
}

#endif

static const char *path_of(char **environment)
{
    static const char name[] = "PATH=";
    for (; *environment; environment++) {
        unsigned n = 0;
        while (name[n] && name[n] == (*environment)[n])
            n++;
        if (!name[n])
            return *environment + n;
    }
    return DEFAULT_PATH;
}

static char *append(char *end, const char *text, unsigned long n)
{
    while (n--)
        *end++ = *text++;
    return end;
}

/* 0 or a negative errno. The kernel says that a directory may be executed, too: it means searched. */
static long check(const char *path)
{
    long error = sys(faccessat, AT_FDCWD, path, EXECUTE);
    if (error)
        return error;
    long directory = sys(openat, AT_FDCWD, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        return 0;
    sys(close, directory);
    return -EACCES;
}

/* Of PATH's directories the first that has it; what can't be executed is passed over. An empty element of PATH is
 * the working directory. */
static int find(const char *command, const char *directory, char found[PATH_MAX])
{
    unsigned long name = length(command) + 1;
    for (;; directory++) {
        unsigned long n = 0;
        while (directory[n] && directory[n] != ':')
            n++;
        if (name > 1 && n + 1 + name <= PATH_MAX) {
            char *end = append(found, directory, n);
            if (n)
                *end++ = '/';
            append(end, command, name);
            if (!check(found))
                return 1;
        }
        directory += n;
        if (!*directory)
            return 0;
    }
}

static int is_path(const char *command)
{
    while (*command && *command != '/')
        command++;
    return *command;
}

/* As Docker looks a command up before it starts a container, and in its words. The path, or none and the status to
 * end with. */
static const char *look_up(const char *command, char **environment, char found[PATH_MAX], int *status)
{
    char number[12];
    if (!is_path(command)) {
        if (find(command, path_of(environment), found))
            return found;
        say("exec: \"", command, "\": executable file not found in $PATH");
        *status = NOT_FOUND;
        return 0;
    }
    long error = check(command);
    if (!error)
        return command;
    if (error == -EACCES)
        say("exec: \"", command, "\": ", reason(error, number));
    else
        say("exec: \"", command, "\": stat ", command, ": ", reason(error, number));
    *status = status_of(error);
    return 0;
}

static int run(int argc, char **argv, char **environment)
{
#ifndef GO
    __u64 mask;
#endif
    char number[12], found[PATH_MAX];
    int status;
    if (argc < 2) {
        complain("usage: w COMMAND [ARGUMENT...]: executes it once the interface " INTERFACE " is up and has carrier");
        return 2;
    }
    const char *command = look_up(argv[1], environment, found, &status);
    if (!command)
        return status;
#ifndef GO
    int signals = take_signals(&mask);
    int links = subscribe();
    if (signals < 0 || links < 0) {
        complain("can't wait for interface " INTERFACE ": ", reason(signals < 0 ? signals : links, number));
        return CANNOT_WAIT;
    }
    sys(prctl, PR_SET_NAME, WAITING);
    wait_for_interface(links, signals);
    leave_if_signalled(signals);  /* one that came with the interface: the command would never hear of it */
    sys(rt_sigprocmask, SIG_SETMASK, &mask, 0, SIGNAL_SET_BYTES);
#endif
    say("exec ", command, ": ", reason(sys(execve, command, argv + 1, environment), number));
    return CANNOT_EXECUTE;
}
