package websocket

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// What stands here are the frames that the cases 1 to 7 of Autobahn's suite send (github.com/crossbario/autobahn-testsuite),
// by its numbers: how they are framed, fragmented and cut, valid or not. The suite itself runs on Python 2 and packages of
// that time, which no registry at hand has; its judgement of an endpoint is not what a gateway is held to, either. A gateway
// passes what a WebSocket says as it is: so each case is sent through it, and what arrives is compared byte for byte.

// webSocketCase is what one case sends.
type webSocketCase struct {
	number string
	frames [][]byte // as they are before they are masked
	chop   int      // bytes in one write; 0: a frame
	clean  bool     // the endpoint answers, and is then said goodbye to
}

// frame returns a frame that is not masked yet.
func frame(first byte, payload string) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n <= 125:
		b = append(b, byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return append(b, payload...)
}

// masked returns a frame as a client sends it (RFC 6455 section 5.3).
func masked(frame []byte) []byte {
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	head := 2
	switch frame[1] {
	case 126:
		head += 2
	case 127:
		head += 8
	}
	out := append([]byte(nil), frame[:head]...)
	out[1] |= 0x80
	out = append(out, key[:]...)
	for i, c := range frame[head:] {
		out = append(out, c^key[i%4])
	}
	return out
}

const (
	hello   = "Hello, world!"
	world   = "Hello World!"
	kosme   = "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"
	binary8 = "\x00\xff\xfe\xfd\xfc\xfb\x00\xff"
	umlauts = "Hello-µ@ßöäüàá-UTF-8!!"
	normal  = "\x03\xe8"
)

// written are the cases that are best written down: the first byte of each frame, in hexadecimal, and its payload. x and
// a number in front is the chop; a ! behind means that the endpoint refuses or has been closed.
var written = []struct{ number, frames string }{
	{"2.1", "89"}, {"2.2", "89 " + hello}, {"2.3", "89 " + binary8}, {"2.4", "89 " + strings.Repeat("\xfe", 125)},
	{"2.5", "89 " + strings.Repeat("\xfe", 126) + "|!"}, {"2.6", "x1|89 " + strings.Repeat("\xfe", 125)},
	{"2.7", "8a|88 " + normal + "|!"}, {"2.8", "8a unsolicited pong payload|88 " + normal + "|!"},
	{"2.9", "8a unsolicited pong payload|89 ping payload"},
	{"3.1", "91 " + hello + "|!"}, {"3.2", "81 " + hello + "|a1 " + hello + "|89|!"}, {"3.3", "81 " + hello + "|b1 " + hello + "|89|!"},
	{"3.4", "x1|81 " + hello + "|c1 " + hello + "|89|!"}, {"3.5", "d2 " + binary8 + "|!"}, {"3.6", "e2 " + hello + "|!"}, {"3.7", "f8|!"},
	{"4.1.1", "83|!"}, {"4.1.2", "84 reserved opcode payload|!"}, {"4.1.3", "81 " + hello + "|85|89|!"},
	{"4.1.4", "81 " + hello + "|86 " + hello + "|89|!"}, {"4.1.5", "x1|81 " + hello + "|87 " + hello + "|89|!"},
	{"4.2.1", "8b|!"}, {"4.2.2", "8c reserved opcode payload|!"}, {"4.2.3", "81 " + hello + "|8d|89|!"},
	{"4.2.4", "81 " + hello + "|8e " + hello + "|89|!"}, {"4.2.5", "x1|81 " + hello + "|8f " + hello + "|89|!"},
	{"5.1", "09 fragment1|80 fragment2|!"}, {"5.2", "0a fragment1|80 fragment2|!"}, {"5.3", "01 fragment1|80 fragment2"},
	{"5.4", "01 fragment1|80 fragment2"}, {"5.5", "x1|01 fragment1|80 fragment2"}, {"5.6", "01 fragment1|89 ping payload|80 fragment2"},
	{"5.7", "01 fragment1|89 ping payload|80 fragment2"}, {"5.8", "x1|01 fragment1|89 ping payload|80 fragment2"},
	{"5.9", "80 non-continuation payload|81 " + hello + "|!"}, {"5.10", "80 non-continuation payload|81 " + hello + "|!"},
	{"5.11", "x1|80 non-continuation payload|81 " + hello + "|!"}, {"5.12", "00 non-continuation payload|81 " + hello + "|!"},
	{"5.13", "00 non-continuation payload|81 " + hello + "|!"}, {"5.14", "x1|00 non-continuation payload|81 " + hello + "|!"},
	{"5.15", "01 fragment1|80 fragment2|00 fragment3|81 fragment4|!"},
	{"5.16", "00 fragment1|01 fragment2|80 fragment3|00 fragment1|01 fragment2|80 fragment3|!"},
	{"5.17", "80 fragment1|01 fragment2|80 fragment3|80 fragment1|01 fragment2|80 fragment3|!"}, {"5.18", "01 fragment1|81 fragment2|!"},
	{"5.19", "01 fragment1|00 fragment2|89 pongme 1!|00 fragment3|00 fragment4|89 pongme 2!|80 fragment5"},
	{"5.20", "01 fragment1|00 fragment2|89 pongme 1!|00 fragment3|00 fragment4|89 pongme 2!|80 fragment5"},
	{"6.1.1", "81"}, {"6.1.2", "01|00|80"}, {"6.1.3", "01|00 middle frame payload|80"},
	{"6.2.1", "81 " + umlauts}, {"6.2.2", "01 " + umlauts[:15] + "|80 " + umlauts[15:]},
	{"6.3.1", "81 " + kosme + "\xed\xa0\x80edited|!"},
	{"6.4.1", "01 " + kosme + "|00 \xf4\x90\x80\x80|80 edited|!"}, {"6.4.2", "01 " + kosme + "\xf4|00 \x90|80 \x80\x80edited|!"},
	{"6.4.3", "x11|81 " + kosme + "\xf4\x90\x80\x80edited|!"}, {"6.4.4", "x12|81 " + kosme + "\xf4\x90\x80\x80edited|!"},
	{"7.1.1", "81 " + world}, {"7.1.2", "88 " + normal + "|88|!"}, {"7.1.3", "88 " + normal + "|89|!"},
	{"7.1.4", "88 " + normal + "|81 " + world + "|!"}, {"7.1.5", "01 fragment1|88 " + normal + "|80 fragment2|!"},
	{"7.1.6", "81 " + strings.Repeat("BAsd7&jh23", 26215)[:256<<10] + "|81 " + world + "|88 " + normal + "|89|!"},
	{"7.3.1", "88|!"}, {"7.3.2", "88 a|!"}, {"7.3.3", "88 " + normal + "|!"}, {"7.3.4", "88 " + normal + world + "|!"},
	{"7.3.5", "88 " + normal + strings.Repeat("*", 123) + "|!"}, {"7.3.6", "88 " + normal + strings.Repeat("*", 124) + "|!"},
	{"7.5.1", "88 " + normal + kosme + "\xed\xa0\x80edited|!"}, {"7.13.1", "88 \x13\x88|!"}, {"7.13.2", "88 \xff\xff|!"},
}

// texts are the payloads of 6.5 to 6.23, one text each (the UTF-8 decoder test of Markus Kuhn); the last of the groups that
// end with a number of refused ones are refused.
var texts = []struct {
	refused  int
	payloads string
}{
	{0, "68656c6c6f24776f726c64 68656c6c6fc2a2776f726c64 68656c6c6fe282ac776f726c64 68656c6c6ff0a4ada2776f726c64 cebae1bdb9cf83cebcceb5"},
	{-1, "ce ceba cebae1 cebae1bd cebae1bdb9 cebae1bdb9cf cebae1bdb9cf83 cebae1bdb9cf83ce cebae1bdb9cf83cebc cebae1bdb9cf83cebcce " +
		"cebae1bdb9cf83cebcceb5"},
	{0, "00 c280 e0a080 f0908080"}, {2, "f888808080 fc8480808080"}, {0, "7f dfbf efbfbf f48fbfbf"}, {3, "f7bfbfbf fbbfbfbfbf fdbfbfbfbfbf"},
	{1, "ed9fbf ee8080 efbfbd f48fbfbf f4908080"}, {8, "80 bf 80bf 80bf80 80bf80bf 80bf80bf80 80bf80bf80bf " + series(0x80, 0xbf, "")},
	{5, strings.Join([]string{series(0xc0, 0xdf, "20"), series(0xe0, 0xef, "20"), series(0xf0, 0xf7, "20"),
		series(0xf8, 0xfb, "20"), "fc20"}, " ")},
	{10, "c0 e080 f08080 f8808080 fc80808080 df efbf f7bfbf fbbfbfbf fdbfbfbfbf"},
	{1, "c0e080f08080f8808080fc80808080dfefbff7bfbffbbfbfbffdbfbfbfbf"}, {3, "fe ff fefeffff"},
	{5, "c0af e080af f08080af f8808080af fc80808080af"}, {5, "c1bf e09fbf f08fbfbf f887bfbfbf fc83bfbfbfbf"},
	{5, "c080 e08080 f0808080 f880808080 fc8080808080"}, {7, "eda080 edadbf edae80 edafbf edb080 edbe80 edbfbf"},
	{8, "eda080edb080 eda080edbfbf edadbfedb080 edadbfedbfbf edae80edb080 edae80edbfbf edafbfedb080 edafbfedbfbf"},
	{0, nonCharacters()}, {0, "efbfb9 efbfba efbfbb efbfbc efbfbd efbfbe efbfbf"},
}

// series is the bytes from one to below another, in hexadecimal, each with something behind it.
func series(from, below int, behind string) string {
	var b strings.Builder
	for c := from; c < below; c++ {
		fmt.Fprintf(&b, "%02x%s", c, behind)
	}
	return b.String()
}

// nonCharacters are the last two code points of every plane that UTF-8 can say.
func nonCharacters() string {
	list := []string{"efbfbe", "efbfbf"}
	for plane := 1; plane <= 16; plane++ {
		for _, last := range []rune{0xfffe, 0xffff} {
			list = append(list, hex.EncodeToString([]byte(string(rune(plane)<<16|last))))
		}
	}
	return strings.Join(list, " ")
}

// webSocketCases are all 246.
func webSocketCases() (list []webSocketCase) {
	add := func(number string, clean bool, chop int, frames ...[]byte) {
		list = append(list, webSocketCase{number, frames, chop, clean})
	}
	for kind, c := range []string{"*", "\xfe"} {
		for i, size := range []int{0, 125, 126, 127, 128, 65535, 65536, 65536} {
			add(fmt.Sprintf("1.%d.%d", kind+1, i+1), true, max(0, i-6)*997, frame(0x81+byte(kind), strings.Repeat(c, size)))
		}
	}
	var pings [][]byte
	for i := range 10 {
		pings = append(pings, frame(0x89, fmt.Sprintf("payload-%d", i)))
	}
	add("2.10", true, 0, pings...)
	add("2.11", true, 1, pings...)
	for _, w := range written {
		number, clean, chop, frames := read(w.number, w.frames)
		add(number, clean, chop, frames...)
	}
	for number, text := range map[string]string{"6.2.3": umlauts, "6.2.4": kosme, "6.3.2": kosme + "\xed\xa0\x80edited"} {
		var frames [][]byte
		for i := range len(text) {
			first := byte(0)
			if i == 0 {
				first = 1
			}
			if i == len(text)-1 {
				first |= 0x80
			}
			frames = append(frames, frame(first, text[i:i+1]))
		}
		add(number, number != "6.3.2", 0, frames...)
	}
	for i, group := range texts {
		payloads := strings.Fields(group.payloads)
		for j, p := range payloads {
			text, err := hex.DecodeString(p)
			if err != nil {
				panic(err)
			}
			add(fmt.Sprintf("6.%d.%d", i+5, j+1), group.refused >= 0 && j < len(payloads)-group.refused, 0, frame(0x81, string(text)))
		}
	}
	for i, code := range []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999} {
		add(fmt.Sprintf("7.7.%d", i+1), false, 0, frame(0x88, string(binary.BigEndian.AppendUint16(nil, code))))
	}
	for i, code := range []uint16{0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999} {
		add(fmt.Sprintf("7.9.%d", i+1), false, 0, frame(0x88, string(binary.BigEndian.AppendUint16(nil, code))))
	}
	return list
}

// read takes a case that is written down apart.
func read(number, text string) (_ string, clean bool, chop int, frames [][]byte) {
	clean = true
	for part := range strings.SplitSeq(text, "|") {
		if n, ok := strings.CutPrefix(part, "x"); ok {
			chop, _ = strconv.Atoi(n) // ours: it is a number
			continue
		}
		if part == "!" {
			clean = false
			continue
		}
		first, payload, _ := strings.Cut(part, " ")
		b, err := hex.DecodeString(first)
		if err != nil {
			panic(number + ": " + part)
		}
		frames = append(frames, frame(b[0], payload))
	}
	return number, clean, chop, frames
}

func TestThereAre246Cases(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range webSocketCases() {
		if seen[c.number] || len(c.frames) == 0 {
			t.Errorf("%s stands twice, or is empty", c.number)
		}
		seen[c.number] = true
	}
	if len(seen) != 246 {
		t.Errorf("%d cases", len(seen))
	}
}
