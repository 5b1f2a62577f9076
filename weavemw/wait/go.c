/* What the wait program is replaced by once weave is uninstalled: it looks the command up as that one does, and
 * executes it at once. Containers that were made to wait for the network start without it then. */
#define GO
#include "wait.c"
