/*
 * Inside sendq/agent: what a process that listens to strangers gives up.
 * Landlock where the kernel has it; where it has none, nothing changes.
 */
#ifndef SENDQ_AGENT_CONFINE_H
#define SENDQ_AGENT_CONFINE_H

/* Its memory can be read by nobody, and it gains no privilege. */
void confine_process(void);
/* Write no file any more. */
void confine_writes(void);
/* Neither read nor write any. */
void confine_files(void);
/* Write none, and read only what name look-ups and certificates need: the system's folders and this file ("" or NULL: none). */
void confine_to_system(const char *also);

#endif
