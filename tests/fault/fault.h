/* What the programs of this folder share. */
#ifndef PTIER_TEST_FAULT_H
#define PTIER_TEST_FAULT_H

/* First thing in main. Temporary directories go to memory, if TMPDIR says nothing else: the shim
 * decides what is durable, not the disk, and a disk is slow. */
void ptier_fault_begin(void);

/* The number in an environment variable, if that is set. */
long ptier_fault_number(const char *variable, long otherwise);

/* Ends the program, naming `what` (copied), unless called again within 60 s. NULL: no deadline. */
void ptier_fault_deadline(const char *what);

/* What was named last; "" after NULL. */
const char *ptier_fault_doing(void);

#endif
