package discover

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// udpSize is the largest answer over UDP that is asked for (DNS flag day 2020: none is cut into fragments).
	udpSize = 1232
	// queryPatience is how long one server may take for one answer.
	queryPatience = 2 * time.Second
	// queryRounds is how often every server is asked.
	queryRounds = 2
	// maxAliases bounds a chain of CNAME records, which may lead back to itself.
	maxAliases = 16
	// maxStray bounds the datagrams that are not the answer and are read all the same: somebody may send guesses.
	maxStray = 64
)

// record is what one resource record says.
type record struct {
	ip   netip.Addr
	srv  dnsmessage.SRVResource
	name string // whose it is, in lower case
	kind dnsmessage.Type
	ttl  time.Duration
}

// answer is the records of the type that was asked for; more are those that came along.
type answer struct {
	records []record
	more    []record
	ttl     time.Duration // the least on the way to them
}

// errNoName says that there is no such name (NXDOMAIN), or that it has nothing of the kind.
var errNoName = errors.New("no such name, or nothing of the kind that was asked for")

// query asks the servers in turn until one answers.
func query(ctx context.Context, servers []string, name string, kind dnsmessage.Type) (answer, error) {
	q, err := newQuestion(name, kind)
	if err != nil {
		return answer{}, err
	}
	err = errors.New("there is no name server")
	for range queryRounds {
		for _, server := range servers {
			var a answer
			if a, err = q.ask(ctx, server); err == nil || errors.Is(err, errNoName) {
				return a, err
			}
			err = fmt.Errorf("%s for %s: %w", server, name, err)
			if ctx.Err() != nil {
				return answer{}, err
			}
		}
	}
	return answer{}, err
}

// question is a query as it is sent.
type question struct {
	is     dnsmessage.Question
	id     uint16
	packet []byte
}

func newQuestion(name string, kind dnsmessage.Type) (*question, error) {
	n, err := dnsmessage.NewName(name)
	if err != nil {
		return nil, fmt.Errorf("%q is not a name: %w", name, err)
	}
	q := &question{is: dnsmessage.Question{Name: n, Type: kind, Class: dnsmessage.ClassINET}, id: uint16(rand.Uint32())}
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: q.id, RecursionDesired: true})
	var opt dnsmessage.ResourceHeader
	err = errors.Join(b.StartQuestions(), b.Question(q.is), b.StartAdditionals(),
		opt.SetEDNS0(udpSize, dnsmessage.RCodeSuccess, false), b.OPTResource(opt, dnsmessage.OPTResource{}))
	if err != nil {
		return nil, fmt.Errorf("%q is not a name: %w", name, err)
	}
	q.packet, err = b.Finish()
	return q, err
}

// ask asks one server over UDP, and over TCP when the answer does not fit (RFC 1035 section 4.2, RFC 7766). Each query comes
// from a port of its own (RFC 5452).
func (q *question) ask(ctx context.Context, server string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, queryPatience)
	defer cancel()
	m, err := q.over(ctx, "udp", server)
	if err == nil && m.Truncated {
		m, err = q.over(ctx, "tcp", server)
	}
	if err != nil {
		return answer{}, err
	}
	switch m.RCode {
	case dnsmessage.RCodeSuccess:
		return q.read(m)
	case dnsmessage.RCodeNameError:
		return answer{}, errNoName
	}
	return answer{}, fmt.Errorf("it answers %s", strings.TrimPrefix(m.RCode.String(), "RCode"))
}

func (q *question) over(ctx context.Context, network, server string) (m *dnsmessage.Message, err error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, server)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) }) // the past: what waits ends
	defer stop()
	if network == "tcp" {
		m, err = q.stream(c)
	} else {
		m, err = q.datagram(c)
	}
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("no answer within %v", queryPatience)
	}
	return m, err
}

func (q *question) datagram(c net.Conn) (*dnsmessage.Message, error) {
	if _, err := c.Write(q.packet); err != nil {
		return nil, err
	}
	buffer := make([]byte, udpSize)
	for range maxStray {
		n, err := c.Read(buffer)
		if err != nil {
			return nil, err
		}
		if m, err := q.unpack(buffer[:n]); err == nil { // else it is not an answer to this question
			return m, nil
		}
	}
	return nil, errors.New("only datagrams that are not the answer")
}

func (q *question) stream(c net.Conn) (*dnsmessage.Message, error) {
	if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(q.packet))), q.packet...)); err != nil {
		return nil, err
	}
	var length [2]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return nil, err
	}
	packet := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(c, packet); err != nil {
		return nil, err
	}
	return q.unpack(packet)
}

// unpack reads a message and wants it to be the answer to the question.
func (q *question) unpack(packet []byte) (*dnsmessage.Message, error) {
	var m dnsmessage.Message
	if err := m.Unpack(packet); err != nil {
		return nil, err
	}
	if m.ID != q.id || !m.Response || len(m.Questions) != 1 || m.Questions[0].Type != q.is.Type ||
		!strings.EqualFold(m.Questions[0].Name.String(), q.is.Name.String()) {
		return nil, errors.New("a message that answers another question")
	}
	return &m, nil
}

// read follows the aliases from the name that was asked for.
func (q *question) read(m *dnsmessage.Message) (a answer, err error) {
	owner := strings.ToLower(q.is.Name.String())
	a.ttl = 1<<31 - 1
	a.ttl *= time.Second
	for range maxAliases {
		next := ""
		for _, r := range m.Answers {
			ttl := time.Duration(r.Header.TTL) * time.Second
			if strings.ToLower(r.Header.Name.String()) != owner {
				continue
			}
			if alias, ok := r.Body.(*dnsmessage.CNAMEResource); ok {
				next, a.ttl = strings.ToLower(alias.CNAME.String()), min(a.ttl, ttl)
			} else if one, ok := readRecord(r); ok && one.kind == q.is.Type {
				a.records, a.ttl = append(a.records, one), min(a.ttl, ttl)
			}
		}
		if len(a.records) > 0 || next == "" {
			break
		}
		owner = next
	}
	if len(a.records) == 0 {
		return a, errNoName
	}
	for _, r := range m.Additionals {
		if one, ok := readRecord(r); ok {
			a.more = append(a.more, one)
		}
	}
	return a, nil
}

func readRecord(r dnsmessage.Resource) (record, bool) {
	one := record{
		name: strings.ToLower(r.Header.Name.String()), kind: r.Header.Type, ttl: time.Duration(r.Header.TTL) * time.Second,
	}
	switch b := r.Body.(type) {
	case *dnsmessage.AResource:
		one.ip = netip.AddrFrom4(b.A)
	case *dnsmessage.AAAAResource:
		one.ip = netip.AddrFrom16(b.AAAA)
	case *dnsmessage.SRVResource:
		one.srv = *b
	default:
		return record{}, false
	}
	return one, true
}
