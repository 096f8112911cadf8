package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Every network has the same addresses, since none sees another. The router has the last one.
const (
	maxMachines  = 100 // bounds the paths, of which there is one for each pair
	firstMachine = 1
	prefix4      = 24
	prefix6      = 64
)

var (
	network4 = [4]byte{10, 77, 0, 0}
	network6 = [16]byte{0xfd, 0x77}
	router4  = [4]byte{10, 77, 0, 254}
)

// Network is machines and the paths between them.
type Network struct {
	home  int // the namespace that this process is in
	done  chan struct{}
	group sync.WaitGroup

	mu       sync.RWMutex
	machines []*Machine
}

// New makes a network without machines, which ends with the test. Where the system does not allow it the test is skipped, and
// the reason said.
func New(t testing.TB) *Network {
	t.Helper()
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		skipOrFail(t, fmt.Errorf("the network namespace: %w", err))
	}
	n := &Network{home: home, done: make(chan struct{})}
	t.Cleanup(n.close)
	return n
}

// skipOrFail tells what is not allowed from what is broken.
func skipOrFail(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOSYS) {
		t.Skipf("network namespaces with TUN devices are not allowed here (they need root, or user namespaces and a /dev/net/tun "+
			"that everybody may open): %v", err)
	}
	t.Fatal(err)
}

// Machine adds a machine. Its name is for those who read the test's log.
func (n *Network) Machine(t testing.TB, name string) *Machine {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	number := len(n.machines) + firstMachine
	if number > maxMachines {
		t.Fatalf("%d machines are enough", maxMachines)
	}
	a4, a6 := network4, network6
	a4[3], a6[15] = byte(number), byte(number)
	m := &Machine{Name: name, Addr: netip.AddrFrom4(a4), Addr6: netip.AddrFrom16(a6), network: n}
	var err error
	m.resident, err = settle(func() (err error) {
		m.tun, err = openDevice(m.Addr, m.Addr6)
		return err
	})
	if err != nil {
		skipOrFail(t, fmt.Errorf("machine %s: %w", name, err))
	}
	for i, other := range n.machines {
		m.paths = append(m.paths, n.newPath(number, other))
		other.paths = append(other.paths, n.newPath(firstMachine+i, m))
	}
	m.paths = append(m.paths, n.newPath(number, m)) // never used: the kernel keeps what one sends to oneself
	n.machines = append(n.machines, m)
	n.group.Go(m.carry)
	return m
}

// newPath leads from the machine of a number to another. What it loses is the same in every run.
func (n *Network) newPath(from int, to *Machine) *path {
	p := &path{to: to, random: rand.New(rand.NewPCG(uint64(from), uint64(to.Addr.As4()[3]))), queue: make(chan parcel, maxQueue)}
	p.condition.Store(&Condition{})
	n.group.Go(func() { p.deliver(n.done) })
	return p
}

// to returns the path from a machine to an address, nil if nobody has it.
func (n *Network) to(from *Machine, a netip.Addr) *path {
	n.mu.RLock()
	defer n.mu.RUnlock()
	for _, p := range from.paths {
		if p.to.Addr == a || p.to.Addr6 == a {
			return p
		}
	}
	return nil
}

// Set makes a condition that of the path from one machine to another. The way back has its own.
func (n *Network) Set(from, to *Machine, c Condition) { n.to(from, to.Addr).condition.Store(&c) }

// Both makes a condition that of both ways between two machines.
func (n *Network) Both(a, b *Machine, c Condition) {
	n.Set(a, b, c)
	n.Set(b, a, c)
}

// Cut swallows everything between two machines, both ways, without a word to either.
func (n *Network) Cut(a, b *Machine) { n.Both(a, b, Condition{Loss: 1}) }

// Heal makes the ways between two machines perfect.
func (n *Network) Heal(a, b *Machine) { n.Both(a, b, Condition{}) }

// Lost returns how many packets from one machine to another were lost, for whatever reason.
func (n *Network) Lost(from, to *Machine) int64 { return n.to(from, to.Addr).lost.Load() }

// Carried returns how many arrived.
func (n *Network) Carried(from, to *Machine) int64 { return n.to(from, to.Addr).carried.Load() }

func (n *Network) close() {
	close(n.done)
	for _, m := range n.machines {
		m.leave()
	}
	n.group.Wait()
	_ = unix.Close(n.home) // read only
}

// Machine is a network namespace with a loopback device and one that leads to the other machines.
type Machine struct {
	Name  string
	Addr  netip.Addr // IPv4
	Addr6 netip.Addr // IPv6, where the kernel has it

	network  *Network
	resident *resident
	tun      *os.File
	paths    []*path // under network.mu
}

// At returns the machine's IPv4 address with a port.
func (m *Machine) At(port int) string { return netip.AddrPortFrom(m.Addr, uint16(port)).String() }

// Do calls f on a thread that is in the machine: sockets that it makes there belong to the machine for ever. f must start no
// process, see [Machine.Start].
func (m *Machine) Do(f func() error) error {
	runtime.LockOSThread()
	if err := unix.Setns(m.resident.space, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter machine %s: %w", m.Name, err)
	}
	defer func() {
		if unix.Setns(m.network.home, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		} // or else the thread ends with the goroutine, so that nobody else gets lost in the machine
	}()
	return f()
}

// Dial opens a connection from the machine to an address, which must not be a name.
func (m *Machine) Dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = m.Do(func() error {
		c, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Listen listens in the machine.
func (m *Machine) Listen(network, address string) (l net.Listener, err error) {
	err = m.Do(func() error {
		l, err = net.Listen(network, address)
		return err
	})
	return l, err
}

// ListenPacket listens for datagrams in the machine.
func (m *Machine) ListenPacket(network, address string) (c net.PacketConn, err error) {
	err = m.Do(func() error {
		c, err = net.ListenPacket(network, address)
		return err
	})
	return c, err
}

// Plug connects the machine's device to the network or, with false, takes it off, as when a cable is pulled: the machine knows
// at once, and nobody else does.
func (m *Machine) Plug(in bool) error {
	return m.Do(func() error { return raise(device, in) })
}

// carry takes the packets that leave the machine to where they go.
func (m *Machine) carry() {
	for b := make([]byte, maxPacket); ; {
		size, err := m.tun.Read(b)
		if err != nil {
			return // closed
		}
		to, ok := destination(b[:size])
		if !ok {
			continue
		}
		p := m.network.to(m, to)
		if p == nil {
			m.refuse(b[:size]) // there is no such machine
			continue
		}
		p.carry(m, b[:size])
	}
}

// receive gives the machine a packet. One that it cannot take, because its device is off or its queue full, is lost.
func (m *Machine) receive(packet []byte) bool {
	_, err := m.tun.Write(packet)
	return err == nil
}

// refuse tells the machine that nobody can be reached at a packet's address.
func (m *Machine) refuse(packet []byte) {
	if answer := unreachable(packet); answer != nil {
		m.receive(answer)
	}
}

// leave gives the namespace up. Processes in it have been ended by their own tests, or are killed now.
func (m *Machine) leave() {
	m.resident.end()
	_ = m.tun.Close() // ends carry
}
