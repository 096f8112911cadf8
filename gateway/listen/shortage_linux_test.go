package listen

import (
	"os"
	"syscall"
	"testing"
)

// lowestFree returns the number that the next file descriptor would get.
func lowestFree(t *testing.T) uint64 {
	t.Helper()
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return uint64(f.Fd())
}

func TestWithoutDescriptorsAcceptingPausesAndGoesOnWhenThereAreSome(t *testing.T) {
	h := open(t, Limits{})
	for range 2 {
		h.dial() // they wait in the kernel
	}
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	short := before
	short.Cur = lowestFree(t)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &short); err != nil {
		t.Fatal(err)
	}
	restore := func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
			t.Error(err)
		}
	}
	defer restore()
	h.run()
	h.until("it pauses", func() bool { return h.counted("headgate_accept_pauses_total") >= 2 })
	if h.server.served() != 0 {
		t.Error("served without a descriptor")
	}
	restore()
	h.until("both are served", func() bool { return h.server.served() == 2 })
}
