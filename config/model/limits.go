package model

import (
	"fmt"

	"headgate/internal/size"
)

// Limits bound what the whole gateway may cost, so that it refuses before the system kills it.
type Limits struct {
	Connections int    `yaml:"connections" min:"0" doc:"Open connections of all listeners together; beyond it accepting waits, and HTTP/3 refuses. 0: no limit."`
	Memory      Memory `yaml:"memory" doc:"Memory that may be used: an amount, auto (what the container or, without a limit there, the machine has) or off. Go's collector is made to stay below 80 % of it (GOMEMLIMIT, unless that is set); from 90 % new requests get 503 overloaded, from 95 % new connections wait."`
}

// Memory is a budget of memory in bytes, or MemoryAuto or MemoryOff.
type Memory int64

// What memory is when it is no amount.
const (
	MemoryAuto Memory = 0  // what there is
	MemoryOff  Memory = -1 // it is not watched
)

// leastMemory is what the gateway cannot do its work below: it would refuse everything from the start.
const leastMemory = Memory(32 * size.MiB)

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *Memory) UnmarshalText(text []byte) error {
	switch s := string(text); s {
	case "auto":
		*m = MemoryAuto
	case "off":
		*m = MemoryOff
	default:
		n, err := size.Parse(s)
		if err != nil {
			return fmt.Errorf("%q is not a budget of memory; write auto, off or an amount such as 512MiB or 2GiB", s)
		}
		if Memory(n) < leastMemory {
			return fmt.Errorf("%s is less than the gateway needs by itself; write auto, off or %s or more", s, size.Bytes(leastMemory))
		}
		*m = Memory(n)
	}
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (m Memory) MarshalText() ([]byte, error) {
	switch m {
	case MemoryAuto:
		return []byte("auto"), nil
	case MemoryOff:
		return []byte("off"), nil
	}
	return size.Bytes(m).MarshalText()
}
