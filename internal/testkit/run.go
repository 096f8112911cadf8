package testkit

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Run runs every script that the patterns name (as in filepath.Glob) as a parallel subtest against the binary.
func Run(t *testing.T, binary string, patterns ...string) {
	t.Helper()
	found := 0
	for _, pattern := range patterns {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found += len(paths)
		for _, path := range paths {
			name := strings.TrimSuffix(strings.TrimPrefix(filepath.ToSlash(path), "../"), ".txt")
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				if report := runFile(path, binary, t.TempDir()); report != "" {
					t.Error(report)
				}
			})
		}
	}
	if found == 0 {
		t.Errorf("no script in %q", patterns)
	}
}

// runFile runs one script and returns what failed, or "".
func runFile(path, binary, dir string) string {
	s, err := readScript(path)
	if err != nil {
		return err.Error()
	}
	r := &runner{script: s, binary: binary, dir: dir, conns: map[string]*client{}, open: map[int]func() error{}}
	r.run()
	if len(r.failures) == 0 {
		return ""
	}
	return strings.Join(r.failures, "\n") + "\n" + r.transcript()
}

// runner is one run of a script.
type runner struct {
	script      *script
	binary, dir string
	vars        []string // old, new, old, new ... for a strings.Replacer
	origins     []*origin
	open        map[int]func() error // how to open an upstream's door that was closed
	gateway     *gateway
	document    int // number of the document in force
	conns       map[string]*client
	current     *client
	crowd       []*wire
	from        []int         // how many requests each upstream had when the exchange began
	within      time.Duration // most time for an answer; 0: patience
	failures    []string
	transcripts []string // of connections that were replaced
	closers     []func() error
}

func (r *runner) fail(line int, format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf("%s:%d: %s", r.script.path, line, fmt.Sprintf(format, args...)))
}

// run does everything that the script's sections ask for.
func (r *runner) run() {
	defer r.cleanUp()
	if err := r.prepare(); err != nil {
		r.fail(1, "%v", err)
		return
	}
	r.checkBadDocuments()
	doc, has := r.script.section("headgate.yaml")
	if !has {
		return
	}
	sec, has := r.script.section("script")
	if !has {
		r.fail(doc.line, "there is a document but no script")
		return
	}
	statements, err := sec.statements(parseClient)
	if err != nil {
		r.fail(sec.line, "%v", err)
		return
	}
	if err := r.start(doc, statements); err != nil {
		r.fail(doc.line, "%v", err)
		return
	}
	r.play(statements)
	r.finish()
}

// prepare starts the upstreams, picks the addresses and writes the files.
func (r *runner) prepare() error {
	for i, name := range []string{"upstream", "upstream 2"} {
		var behave []statement
		if sec, ok := r.script.section(name); ok {
			var err error
			if behave, err = sec.statements(parseUpstream); err != nil {
				return err
			}
		}
		o, err := newOrigin(name, behave)
		if err != nil {
			return err
		}
		r.origins = append(r.origins, o)
		r.vars = append(r.vars, "${"+strings.ToUpper("upstream"+[]string{"", "2"}[i])+"}", o.url())
	}
	for _, name := range []string{"LISTEN", "LISTEN2", "ADMIN"} {
		address, err := FreeAddress()
		if err != nil {
			return err
		}
		r.vars = append(r.vars, "${"+name+"}", address)
	}
	dead, closeDead, err := deadAddress()
	if err != nil {
		return err
	}
	stuck, closeStuck, err := stuckAddress()
	if err != nil {
		return errors.Join(err, closeDead())
	}
	r.closers = append(r.closers, closeDead, closeStuck)
	taken := strings.TrimPrefix(r.origins[1].url(), "http://")
	r.vars = append(r.vars, "${TAKEN}", taken, "${DEAD}", "http://"+dead, "${STUCK}", "http://"+stuck, "${DIR}", r.dir)
	for _, sec := range r.script.sections {
		if name, ok := strings.CutPrefix(sec.name, "file "); ok {
			if err := os.WriteFile(filepath.Join(r.dir, name), []byte(r.expand(sec.text)), 0o600); err != nil {
				return err
			}
		}
	}
	r.from = make([]int, len(r.origins))
	return nil
}

// expand puts this run's addresses into a text. Other references, such as ${env:NAME}, stay.
func (r *runner) expand(text string) string { return strings.NewReplacer(r.vars...).Replace(text) }

func (r *runner) environment() (env []string) {
	if sec, ok := r.script.section("environment"); ok {
		env = strings.Fields(r.expand(sec.text))
	}
	return env
}

// checkBadDocuments compares what `headgate check` says of each bad document with the section that follows it.
func (r *runner) checkBadDocuments() {
	for i, sec := range r.script.sections {
		if sec.name != "bad.yaml" {
			continue
		}
		if i+1 == len(r.script.sections) || r.script.sections[i+1].name != "error" {
			r.fail(sec.line, "bad.yaml is not followed by a section error")
			continue
		}
		if err := os.WriteFile(filepath.Join(r.dir, "bad.yaml"), []byte(r.expand(sec.text)), 0o600); err != nil {
			r.fail(sec.line, "%v", err)
			continue
		}
		c := exec.Command(r.binary, "check", "bad.yaml")
		c.Dir, c.Env = r.dir, append(os.Environ(), r.environment()...)
		out, err := c.CombinedOutput()
		failed := new(exec.ExitError)
		if err != nil && !errors.As(err, &failed) {
			r.fail(sec.line, "%v", err)
			continue
		}
		want := r.script.sections[i+1]
		if got := strings.TrimSpace(string(out)); got != strings.TrimSpace(r.expand(want.text)) {
			r.fail(want.line, "headgate check says\n%s\nnot\n%s", got, strings.TrimSpace(r.expand(want.text)))
		}
		if code := c.ProcessState.ExitCode(); code != 2 {
			r.fail(want.line, "headgate check exits with code %d, not 2", code)
		}
	}
}

var (
	hasAdmin = regexp.MustCompile(`(?m)^admin:`)
	hasLog   = regexp.MustCompile(`(?m)^log:`)
)

// write puts a document where the gateway reads it, with the operators' listener on this run's own address. It replaces
// the file by renaming, as editors do.
func (r *runner) write(doc section) error {
	text := doc.text
	if !hasAdmin.MatchString(text) {
		text += "\nadmin: {address: \"${ADMIN}\"}\n"
	}
	if !hasLog.MatchString(text) {
		text += "\nlog: {access: {to: \"off\"}}\n"
	}
	path := filepath.Join(r.dir, "headgate.yaml")
	if err := os.WriteFile(path+".new", []byte(r.expand(text)), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// start writes the first document and starts the gateway. The clock can be moved if the script moves it.
func (r *runner) start(doc section, statements []statement) (err error) {
	if err := r.write(doc); err != nil {
		return err
	}
	r.document = 1
	var flags []string
	for _, s := range statements {
		if s.verb == "advance" {
			flags = []string{"--test-clock"}
			break
		}
	}
	r.gateway, err = startGateway(r.binary, r.dir, "headgate.yaml", r.expand("${ADMIN}"), r.environment(), flags)
	if err != nil || fails(statements) {
		return err
	}
	return r.gateway.ready()
}

// fails reports whether a script begins by saying how the gateway exits: then it is not awaited.
func fails(statements []statement) bool { return len(statements) > 0 && statements[0].verb == "exit" }

// finish looks at what nobody asked about: bytes that came unasked, requests that were forwarded unasked, and what the
// upstreams complain of.
func (r *runner) finish() {
	for name, c := range r.conns {
		if extra := c.extra(); extra != "" {
			r.fail(1, "connection %s received more than the script reads: %s", name, extra)
		}
	}
	for i, o := range r.origins {
		if !o.wait(time.Now().Add(patience), func() bool { return o.finished }) {
			r.fail(o.at, "%s still waits here", o.name)
		}
		o.mu.Lock()
		for _, f := range o.faults {
			r.fail(1, "%s", f)
		}
		o.mu.Unlock()
		if more := o.since(r.from[i]); len(more) > 0 && r.lastGotNothing() {
			r.fail(1, "%s received %q after the script had ended", o.name, more[0].line)
		}
	}
}

// lastGotNothing reports whether the script's last word is that nothing was forwarded.
func (r *runner) lastGotNothing() bool {
	sec, _ := r.script.section("script")
	lines := strings.Split(strings.TrimSpace(sec.text), "\n")
	return strings.HasPrefix(lines[len(lines)-1], "^none")
}

func (r *runner) cleanUp() {
	for _, c := range r.conns {
		c.Close()
	}
	for _, w := range r.crowd {
		w.Close()
	}
	if r.gateway != nil {
		if err := r.gateway.end(); err != nil {
			r.fail(1, "%v", err)
		}
	}
	for _, o := range r.origins {
		o.close()
	}
	for _, c := range r.closers {
		if err := c(); err != nil && !errors.Is(err, net.ErrClosed) {
			r.fail(1, "%v", err)
		}
	}
}

// transcript shows the raw bytes of every connection and the gateway's log.
func (r *runner) transcript() string {
	var b strings.Builder
	for _, t := range r.transcripts {
		b.WriteString(t)
	}
	for name, c := range r.conns {
		fmt.Fprintf(&b, "client, connection %s:\n%s", name, c.transcript())
	}
	for _, o := range r.origins {
		b.WriteString(o.transcript())
	}
	if r.gateway != nil {
		fmt.Fprintf(&b, "the gateway's log:\n%s", r.gateway.out)
	}
	return b.String()
}
