// Package lab is a network of machines for tests. Each machine is a Linux network namespace with processes of its own, and this
// process is the network between them: it carries every packet itself, and can lose, delay, slow down, swallow or refuse them,
// each way by itself. So it needs no queueing discipline of the kernel's, no bridge and no program such as ip or tc.
//
// Nothing of it has a name outside this process: namespaces, devices and the files of [Enter] live as long as somebody holds
// them open, and processes are killed with their machine. Whatever becomes of a test, nothing of it stays behind.
package lab
