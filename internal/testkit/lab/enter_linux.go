package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// inside is set in the environment of a process that Enter has started.
const inside = "HEADGATE_LAB"

// scratch is where the files of a process inside are: a folder that every system has, covered by one that nobody else sees.
const scratch = "/mnt"

// Enter runs a test binary's tests, for TestMain, in a process of their own: where this one is not root it is so in there, and
// its temporary files are in a file system that vanishes with it, however it ends. Where that is not allowed the tests run as
// they are, and [New] skips those that need it. It returns the exit code.
func Enter(run func() int) int {
	if os.Getenv(inside) != "" {
		if err := furnish(); err != nil {
			fmt.Fprintln(os.Stderr, "lab:", err)
			return 1
		}
		return run()
	}
	code, err := again()
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab: tests that need a network of their own are skipped:", err)
		return run()
	}
	return code
}

// again starts this program once more, with what it needs to make namespaces.
func again() (code int, err error) {
	runtime.LockOSThread() // the child is killed when this thread ends
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inside+"=1", "TMPDIR="+scratch)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWNS}
	if id := os.Geteuid(); id != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: id, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	failed := new(exec.ExitError)
	if err := cmd.Wait(); err != nil && !errors.As(err, &failed) {
		return 0, err
	}
	if code = cmd.ProcessState.ExitCode(); code < 0 {
		fmt.Fprintln(os.Stderr, "lab: the tests were ended:", cmd.ProcessState)
		code = 1
	}
	return code, nil
}

// furnish covers the scratch folder.
func furnish() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts to ourselves: %w", err)
	}
	if err := unix.Mount("lab", scratch, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0777"); err != nil {
		return fmt.Errorf("cover %s: %w", scratch, err)
	}
	return nil
}
