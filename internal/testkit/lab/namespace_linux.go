package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// device is the name of a machine's device.
const device = "lab0"

// resident is a thread that lives in a network namespace. Processes that it starts are in it, too, and are killed when it ends.
type resident struct {
	space int // the namespace
	jobs  chan func()
	ended chan struct{}
}

// settle makes a namespace, prepares it and leaves a resident there.
func settle(prepare func() error) (*resident, error) {
	r := &resident{space: -1, jobs: make(chan func()), ended: make(chan struct{})}
	begun := make(chan error)
	go func() {
		defer close(r.ended)
		runtime.LockOSThread() // for ever: the thread is good for nothing else, and ends with this goroutine
		err := r.begin(prepare)
		begun <- err
		if err != nil {
			return
		}
		for job := range r.jobs {
			job()
		}
	}()
	if err := <-begun; err != nil {
		if r.space >= 0 {
			_ = unix.Close(r.space) // read only
		}
		return nil, err
	}
	return r, nil
}

func (r *resident) begin(prepare func() error) (err error) {
	if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	if r.space, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("hold the namespace: %w", err)
	}
	return prepare()
}

// do calls f on the thread.
func (r *resident) do(f func() error) error {
	result := make(chan error)
	r.jobs <- func() { result <- f() }
	return <-result
}

func (r *resident) end() {
	close(r.jobs)
	<-r.ended
	_ = unix.Close(r.space) // read only
}

// openDevice gives the thread's namespace its devices, and returns the end of the one that leads out.
func openDevice(a4, a6 netip.Addr) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	err = request(device, unix.TUNSETIFF, fd, func(r *unix.Ifreq) error {
		r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		return nil
	})
	if err == nil {
		err = errors.Join(address4(a4), raise(device, true), raise("lo", true), address6(a6))
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), device), nil
}

// request asks the kernel something about a device, through a socket or, if fd is not negative, a file of its own.
func request(name string, what uint, fd int, fill func(*unix.Ifreq) error) error {
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := fill(r); err != nil {
		return err
	}
	if fd < 0 {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return fmt.Errorf("socket: %w", err)
		}
		defer func() { _ = unix.Close(fd) }() // nothing was written
	}
	if err := unix.IoctlIfreq(fd, what, r); err != nil {
		return fmt.Errorf("set up %s (%#x): %w", name, what, err)
	}
	return nil
}

func address4(a netip.Addr) error {
	mask := net.CIDRMask(prefix4, 32)
	return errors.Join(
		request(device, unix.SIOCSIFADDR, -1, func(r *unix.Ifreq) error { return r.SetInet4Addr(a.AsSlice()) }),
		request(device, unix.SIOCSIFNETMASK, -1, func(r *unix.Ifreq) error { return r.SetInet4Addr(mask) }),
	)
}

// raise turns a device on or off.
func raise(name string, on bool) error {
	return request(name, unix.SIOCSIFFLAGS, -1, func(r *unix.Ifreq) error {
		if on {
			r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING | unix.IFF_NOARP)
		}
		return nil
	})
}

// address6 gives the device its IPv6 address, where the kernel speaks IPv6 at all.
func address6(a netip.Addr) error {
	s, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil // there is no IPv6
	}
	defer func() { _ = unix.Close(s) }() // nothing was written
	i, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	r := struct { // in6_ifreq of linux/ipv6.h
		address [16]byte
		prefix  uint32
		index   int32
	}{a.As16(), prefix6, int32(i.Index)}
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(s), unix.SIOCSIFADDR, uintptr(unsafe.Pointer(&r)))
	switch e {
	case 0:
	case unix.EACCES: // IPv6 is turned off
		return nil
	default:
		return fmt.Errorf("give %s the address %s: %w", device, a, e)
	}
	for began := time.Now(); ; time.Sleep(time.Millisecond) { // the kernel makes it usable a little later
		err := unix.Bind(s, &unix.SockaddrInet6{Addr: a.As16()})
		if err == nil || time.Since(began) > readyTime {
			return err
		}
	}
}

// readyTime bounds the wait for an address.
const readyTime = 5 * time.Second
