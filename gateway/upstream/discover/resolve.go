package discover

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// resolver asks for records of a name.
type resolver interface {
	lookup(ctx context.Context, name string, kind dnsmessage.Type) (answer, error)
}

// system asks the name servers of a file such as /etc/resolv.conf, which is read again each time, or given ones.
type system struct {
	file    string
	servers []string // instead of those of the file
}

const (
	// resolvConf is where Unix systems name their servers (resolv.conf(5)).
	resolvConf = "/etc/resolv.conf"
	// maxConf bounds what is read of it.
	maxConf = 64 << 10
	// maxServers and maxSearch bound the queries that one look-up may lead to; the system's own resolver has 3 and 6.
	maxServers, maxSearch = 8, 16
	// maxDots bounds ndots (resolv.conf(5)).
	maxDots = 15
)

// conf is what resolv.conf says.
type conf struct {
	servers []string
	search  []string
	dots    int
}

func (s system) conf() conf {
	c := conf{dots: 1}
	if f, err := os.Open(s.file); err == nil {
		content, err := io.ReadAll(io.LimitReader(f, maxConf))
		_ = f.Close() // only read
		if err == nil {
			c = parseConf(content)
		}
	}
	if len(s.servers) > 0 {
		c.servers = s.servers
	}
	if len(c.servers) == 0 {
		c.servers = []string{"127.0.0.1:53"} // resolv.conf(5)
	}
	return c
}

func parseConf(content []byte) conf {
	c := conf{dots: 1}
	lines := bufio.NewScanner(bytes.NewReader(content))
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) < 2 || strings.HasPrefix(words[0], "#") || strings.HasPrefix(words[0], ";") {
			continue
		}
		switch words[0] {
		case "nameserver":
			if len(c.servers) < maxServers {
				c.servers = append(c.servers, net.JoinHostPort(words[1], "53"))
			}
		case "search", "domain":
			c.search = words[1:min(len(words), 1+maxSearch)]
		case "options":
			for _, o := range words[1:] {
				if n, ok := strings.CutPrefix(o, "ndots:"); ok {
					if dots, err := strconv.Atoi(n); err == nil {
						c.dots = max(0, min(dots, maxDots))
					}
				}
			}
		}
	}
	return c
}

// candidates are the names to ask for, in order: a name with fewer dots than ndots is looked for in the search list first.
func (c conf) candidates(name string) (list []string) {
	if strings.HasSuffix(name, ".") {
		return []string{name}
	}
	for _, s := range c.search {
		list = append(list, name+"."+strings.Trim(s, ".")+".")
	}
	if whole := name + "."; strings.Count(name, ".") >= c.dots {
		return append([]string{whole}, list...)
	} else {
		return append(list, whole)
	}
}

// lookup implements resolver.
func (s system) lookup(ctx context.Context, name string, kind dnsmessage.Type) (answer, error) {
	c := s.conf()
	for _, n := range c.candidates(name) {
		if a, err := query(ctx, c.servers, n, kind); !errors.Is(err, errNoName) {
			return a, err
		}
	}
	return answer{}, errNoName
}
