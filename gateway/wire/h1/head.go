package h1

import (
	"strings"
	"time"

	"headgate/gateway/exchange"
)

// Head is what a head says about its message and its connection, none of which is the business of those behind the wire.
type Head struct {
	Length     int64 // Content-Length; -1: none
	Chunked    bool
	Old        bool          // HTTP/1.0
	Close      bool          // the sender will close, or cannot keep the connection
	Upgrade    bool          // names another protocol
	Protocols  string        // which, as it came
	Expect     bool          // waits for 100 (Continue)
	KeepIdle   time.Duration // how long the sender says that it keeps an idle connection (Keep-Alive: timeout=N); 0: it does not say
	Scheme     string        // of a target in absolute form: "http" or "https"; "": the connection's own
	hosts      int
	lengths    int
	codings    int
	connection string // the Connection field, when it names more than close and keep-alive
	keepAlive  bool
	asks       bool // Connection names upgrade
}

// fields parses the header section b[i:], which ends with an empty line, into h. s is b as a string. It keeps what
// belongs to the connection out of h and in head. host receives the Host field.
func (head *Head) fields(s string, b []byte, i, limit int, h *exchange.Header, host *string) error {
	for n := 0; ; n++ {
		if b[i] == '\r' {
			if b[i+1] != '\n' {
				return errBareCR
			}
			return nil
		}
		if n == limit {
			return errTooManyFields
		}
		colon := tokenEnd(b, i)
		if b[colon] != ':' || colon == i {
			return nameError(b, i, colon)
		}
		from := colon + 1
		for b[from] == ' ' || b[from] == '\t' {
			from++
		}
		end := valueEnd(b, from)
		if b[end] != '\r' || b[end+1] != '\n' {
			return valueError(b[end])
		}
		to := end
		for to > from && (b[to-1] == ' ' || b[to-1] == '\t') {
			to--
		}
		keep, err := head.special(s[i:colon], s[from:to], host)
		if err != nil {
			return err
		}
		if keep {
			h.AddLine(s[i:colon], s[from:to], i, end+2)
		}
		i = end + 2
	}
}

func nameError(b []byte, i, colon int) error {
	switch c := b[colon]; {
	case (c == ' ' || c == '\t') && colon == i:
		return errFold
	case c == ' ' || c == '\t':
		return errNameSpace
	case c == '\n':
		return errBareLF
	}
	return errName
}

func valueError(c byte) error {
	switch c {
	case '\r':
		return errBareCR
	case '\n':
		return errBareLF
	}
	return errValue
}

// special takes a field that is about this connection or the framing into head, and reports whether the field goes on
// to the other side (RFC 9110 section 7.6.1).
func (head *Head) special(name, value string, host *string) (keep bool, err error) {
	switch len(name) {
	case 2:
		return !exchange.EqualFold(name, "TE"), nil
	case 4:
		if exchange.EqualFold(name, "Host") && host != nil {
			head.hosts++
			*host = value
			return false, nil
		}
	case 6:
		if exchange.EqualFold(name, "Expect") && host != nil {
			if !exchange.EqualFold(value, "100-continue") {
				return false, errExpectation
			}
			head.Expect = true
			return false, nil
		}
	case 7:
		if exchange.EqualFold(name, "Upgrade") {
			if head.Upgrade {
				value = head.Protocols + "," + value
			}
			head.Upgrade, head.Protocols = true, value
			return false, nil
		}
	case 10:
		if exchange.EqualFold(name, "Connection") {
			head.connectionOptions(value)
			return false, nil
		}
		if exchange.EqualFold(name, "Keep-Alive") {
			head.keepIdle(value)
			return false, nil
		}
	case 14:
		if exchange.EqualFold(name, "Content-Length") {
			head.lengths++
			head.Length, err = parseLength(value)
			return false, err
		}
	case 16:
		return !exchange.EqualFold(name, "Proxy-Connection"), nil
	case 17:
		if exchange.EqualFold(name, "Transfer-Encoding") {
			head.codings++
			if !exchange.EqualFold(value, "chunked") {
				return false, errCoding
			}
			head.Chunked = true
			return false, nil
		}
	case 18:
		return !exchange.EqualFold(name, "Proxy-Authenticate"), nil
	case 19:
		return !exchange.EqualFold(name, "Proxy-Authorization"), nil
	}
	return true, nil
}

// maxKeepIdle bounds how long a sender's word about idle connections counts: more is nobody's.
const maxKeepIdle = 24 * time.Hour

// keepIdle reads the parameter timeout, in seconds, of the field Keep-Alive (RFC 2068 section 19.7.1.1). What is not
// understood is passed over: the field promises nothing.
func (head *Head) keepIdle(value string) {
	const name = "timeout="
	for i := 0; i+len(name) < len(value); i++ {
		if i > 0 && value[i-1] != ',' && value[i-1] != ' ' && value[i-1] != '\t' || !exchange.EqualFold(value[i:i+len(name)], name) {
			continue
		}
		n := time.Duration(0)
		for i += len(name); i < len(value) && isDigit(value[i]) && n <= maxKeepIdle/time.Second; i++ {
			n = 10*n + time.Duration(value[i]-'0')
		}
		head.KeepIdle = min(n*time.Second, maxKeepIdle)
		return
	}
}

func (head *Head) connectionOptions(value string) {
	switch {
	case exchange.EqualFold(value, "keep-alive"):
		head.keepAlive = true
	case exchange.EqualFold(value, "close"):
		head.Close = true
	default:
		head.connection += value + ","
	}
}

// dropNamed removes the fields that Connection names. Framing and Host are not among them: the codec has taken those out
// of h already and stands by what it read.
func (head *Head) dropNamed(h *exchange.Header) {
	for option := range strings.SplitSeq(head.connection, ",") {
		switch option = strings.Trim(option, " \t"); {
		case option == "":
		case exchange.EqualFold(option, "close"):
			head.Close = true
		case exchange.EqualFold(option, "keep-alive"):
			head.keepAlive = true
		case exchange.EqualFold(option, "upgrade"):
			head.asks = true
		default:
			h.Del(option)
		}
	}
}

// framing checks what both kinds of message have in common (RFC 9112 section 6).
func (head *Head) framing() error {
	switch {
	case head.codings > 1:
		return errCodingRepeated
	case head.lengths > 1:
		return errLengthRepeated
	case head.codings > 0 && head.lengths > 0:
		return errBothFramings
	case head.codings > 0 && head.Old:
		return errCodingOld
	}
	return nil
}

// parseLength reads a Content-Length: digits and nothing else, not even a list of equal ones.
func parseLength(s string) (int64, error) {
	if len(s) > maxLengthDigits { // 1*DIGIT (RFC 9110 section 8.6) allows any number of zeros in front
		s = strings.TrimLeft(s[:len(s)-1], "0") + s[len(s)-1:]
	}
	if s == "" || len(s) > maxLengthDigits {
		return 0, errLength
	}
	var n int64
	for i := range len(s) {
		c := s[i] - '0'
		if c > 9 {
			return 0, errLength
		}
		n = n*10 + int64(c)
	}
	return n, nil
}
