package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"headgate/bench/peers"
)

// checkLog makes sure, once the gateway has ended, that it wrote a line of JSON for every request that it was measured with.
func (b *bench) checkLog(g *peers.Gateway, s sample) error {
	if g.Settings.Log == "" || s == nil {
		return nil
	}
	lines, first, err := readLog(g.Settings.Log)
	if err != nil {
		return fmt.Errorf("access log: %w", err)
	}
	if wanted := int(s[perSecond] * b.duration.Seconds() * 0.99); lines < wanted {
		return fmt.Errorf("the access log has %d lines for at least %d requests", lines, wanted)
	}
	for _, field := range []string{"id", "consumer", "status"} {
		if _, ok := first[field]; !ok {
			return fmt.Errorf("the access log has no field %q: %v", field, first)
		}
	}
	return nil
}

// readLog counts the lines and decodes the first and the last.
func readLog(path string) (lines int, first map[string]any, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	in := bufio.NewScanner(f)
	var last []byte
	for in.Scan() {
		last = append(last[:0], in.Bytes()...)
		if lines++; lines == 1 {
			if err := json.Unmarshal(last, &first); err != nil {
				return lines, nil, fmt.Errorf("line 1 is not JSON: %w: %s", err, last)
			}
		}
	}
	if err := in.Err(); err != nil {
		return lines, first, err
	}
	if lines > 0 && !json.Valid(last) {
		return lines, first, fmt.Errorf("line %d is not JSON: %s", lines, last)
	}
	return lines, first, nil
}

// openFiles returns how many files this process, and so a gateway that it starts, may open.
func openFiles() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return 1024
	}
	return int(min(limit.Cur, files))
}
