package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"
)

// slow is how long a command of the Go tool may take, or a process to end.
const slow = 3 * time.Minute

// page is the folder and the processes of a reader who follows one page from top to bottom.
type page struct {
	t       *testing.T
	dir     string
	env     []string
	ports   []string // as written, in order of documentedPorts
	block   block    // that is being executed
	running []*process
	gateway *process // the one started last
}

// documentedPorts are those that pages and examples use. Each page gets free ones with as many digits instead, so that
// columns and lengths stay what is shown.
var documentedPorts = []string{"8080", "8081", "8443", "9080", "9000", "9001", "9101", "9102", "9103"}

var documentedPort = regexp.MustCompile(`:(` + strings.Join(documentedPorts, "|") + `)\b`)

func newPage(t *testing.T, binary string, blocks []block) *page {
	p := &page{t: t, dir: t.TempDir()}
	for range documentedPorts {
		p.ports = append(p.ports, freePort(t))
	}
	tree := []string{"examples", "Makefile"}
	if slices.ContainsFunc(blocks, func(b block) bool { return b.kind == "go" }) {
		tree = []string{"."}
	}
	for _, path := range tree {
		p.copyTree(path)
	}
	p.must(os.MkdirAll(filepath.Join(p.dir, "bin"), 0o755))
	program, err := os.ReadFile(binary)
	p.must(err)
	p.must(os.WriteFile(filepath.Join(p.dir, "bin", "headgate"), program, 0o755)) // a copy: pages may build another one
	p.write(".curlrc", "silent\nshow-error\nmax-time = 30\n")
	p.env = append(os.Environ(), "HEADGATE_STATE="+filepath.Join(p.dir, "state"), "PATH="+filepath.Join(p.dir, "bin")+":"+os.Getenv("PATH"),
		"CURL_HOME="+p.dir, "CGO_ENABLED=0")
	t.Cleanup(p.end)
	return p
}

func (p *page) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatalf("%s:%d: %v", p.block.page, p.block.line, err)
	}
}

func (p *page) errorf(format string, args ...any) {
	p.t.Helper()
	p.t.Errorf("%s:%d: %s", p.block.page, p.block.line, fmt.Sprintf(format, args...))
}

// copyTree copies what the page needs of this repository, with its ports in the examples.
func (p *page) copyTree(path string) {
	root := filepath.Clean("..")
	p.must(filepath.WalkDir(filepath.Join(root, path), func(from string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(root, from)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // a file that came and went
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{".git", "bin", "bench"}, name):
			return filepath.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(p.dir, name), 0o755)
		case !d.Type().IsRegular():
			return nil
		}
		content, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		text := string(content)
		if strings.HasPrefix(name, "examples/") {
			text = p.local(text)
		}
		return os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o644)
	}))
}

func (p *page) write(name, text string) {
	path := filepath.Join(p.dir, name)
	p.must(os.MkdirAll(filepath.Dir(path), 0o755))
	p.must(os.WriteFile(path, []byte(text), 0o644))
}

// local replaces the documented ports by the page's own, shown does the reverse.
func (p *page) local(text string) string {
	return documentedPort.ReplaceAllStringFunc(text, func(s string) string {
		return ":" + p.ports[slices.Index(documentedPorts, s[1:])]
	})
}

func (p *page) shown(text string) string {
	for i, port := range p.ports {
		text = strings.ReplaceAll(text, ":"+port, ":"+documentedPorts[i])
	}
	return text
}

func (p *page) run(blocks []block) {
	for _, b := range blocks {
		p.block = b
		switch b.kind {
		case "yaml":
			p.document()
		case "console":
			p.console()
		case "sh":
			for _, c := range commandsOf(b.text, "") {
				p.command(c)
			}
		case "json":
			if !json.Valid([]byte(b.text)) {
				p.errorf("this is not JSON")
			}
		case "go", "markdown":
			p.write(b.words["file"], b.text)
		case "diff":
			p.patch()
		}
		if p.t.Failed() && b.kind != "console" {
			return // what follows builds on it
		}
	}
}

// document checks a whole document, or a part of one inside of another.
func (p *page) document() {
	b, name := p.block, p.block.words["file"]
	text := p.local(b.text)
	if b.has("env") {
		p.env = append(p.env, b.words["env"]+"=demo")
	}
	if b.has("under") {
		text = p.around(b.words["under"], text)
	}
	if name == "" {
		name = "block-" + itoa(b.line) + ".yaml"
	}
	p.write(name, text)
	want := 0
	if b.has("bad") {
		want = 2
	}
	if out, code := p.bash("headgate check " + name); code != want {
		p.errorf("headgate check exits %d, want %d: %s", code, want, out)
	}
}

// surroundings is the document that parts of documents are put into.
const surroundings = `
upstreams: {orders: "http://127.0.0.1:9101", customers: "http://127.0.0.1:9102", products: "http://127.0.0.1:9103"}
apis: {shop: {base_path: /shop, upstream: orders}}
consumers: {demo: {groups: [buyers], keys: ["sha256:2a97516c354b68848cdbd8f54a226a0a55b21ed138e207ad6c5cbb9c00aa5aea"]}}
`

// around puts a part of a document at a path, such as apis.shop.policies, of the surroundings; at "." its keys stand beside theirs.
func (p *page) around(path, text string) string {
	var whole map[string]any
	var part any
	p.must(yaml.Unmarshal([]byte(p.local(surroundings)), &whole))
	p.must(yaml.Unmarshal([]byte(text), &part))
	if path == "." {
		keys, ok := part.(map[string]any)
		if !ok {
			p.t.Fatalf("%s:%d: this part has no keys", p.block.page, p.block.line)
		}
		for k, v := range keys {
			whole[k] = v
		}
	} else {
		at := whole
		steps := strings.Split(path, ".")
		for _, s := range steps[:len(steps)-1] {
			next, ok := at[s].(map[string]any)
			if !ok {
				next = map[string]any{}
				at[s] = next
			}
			at = next
		}
		at[steps[len(steps)-1]] = part
	}
	b, err := yaml.Marshal(whole)
	p.must(err)
	return string(b)
}

// shownCommand is a command with what the page shows of its output.
type shownCommand struct {
	text   string
	output string
	exit   int
	line   int
}

var exits = regexp.MustCompile(`\s+# exits (\d+)$`)

// commandsOf splits a block into commands: those behind the prompt, or without one every line.
func commandsOf(text, prompt string) (list []shownCommand) {
	open := false // the last command goes on in the next line
	for i, line := range slices.Collect(strings.Lines(text)) {
		line = strings.TrimRight(line, "\n")
		last := len(list) - 1
		switch {
		case open:
			list[last].text += "\n" + line
		case strings.HasPrefix(line, prompt) && (prompt != "" || strings.TrimSpace(line) != ""):
			list = append(list, shownCommand{text: strings.TrimPrefix(line, prompt), line: i + 1})
			last++
		case last >= 0:
			list[last].output += line + "\n"
			continue
		default:
			continue
		}
		if open = strings.HasSuffix(line, `\`); open {
			continue
		}
		if m := exits.FindStringSubmatch(list[last].text); m != nil {
			list[last].exit, _ = strconv.Atoi(m[1])
			list[last].text = strings.TrimSuffix(list[last].text, m[0])
		}
	}
	return list
}

func (p *page) console() {
	list := commandsOf(p.block.text, "$ ")
	if len(list) == 0 {
		p.errorf("a console shows commands behind \"$ \"")
	}
	for _, c := range list {
		if p.block.has("runs") {
			p.start(c)
			continue
		}
		p.compare(c)
		if strings.HasPrefix(c.text, "kill $(pidof headgate)") && p.gateway != nil {
			p.gateway.told = true
		}
	}
}

// compare runs a command until its output is the one shown.
func (p *page) compare(c shownCommand) {
	for deadline := time.Now().Add(patience); ; {
		out, code := p.bash(c.text)
		if out = p.shown(out); code == c.exit && fits(c.output, out, false) {
			return
		}
		if time.Now().After(deadline) || strings.HasPrefix(c.text, "go ") {
			p.errorf("%s\nexits %d, want %d, and prints\n%s\nwant\n%s%s", c.text, code, c.exit, out, c.output, p.logs())
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// elsewhere are the commands that the tests are not the place for; CI runs them. Their targets must exist.
var elsewhere = []string{"test", "bench", "fuzz", "check", "lint", "docs"}

// command runs one line of a sh block.
func (p *page) command(c shownCommand) {
	switch target, isMake := strings.CutPrefix(c.text, "make "); {
	case isMake && target == "run":
		lines := strings.Fields(strings.TrimSpace(recipe(p.t, "run")))
		at := slices.Index(lines, "bin/headgate")
		p.start(shownCommand{text: strings.Join(lines[max(at, 0):], " ")})
		return
	case isMake && slices.Contains(elsewhere, target):
		if recipe(p.t, target) == "" {
			p.errorf("the Makefile has no target %s", target)
		}
		return
	}
	if out, code := p.bash(c.text); code != c.exit {
		p.errorf("%s\nexits %d: %s", c.text, code, out)
	}
}

// recipe returns the commands of a target of the Makefile.
func recipe(t *testing.T, target string) string {
	t.Helper()
	text, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n"+target+":")
	_, rest, _ = strings.Cut(rest, "\n")
	body, _, _ := strings.Cut(rest, "\n\n")
	return body
}

// bash runs a command in the page's folder and returns what it prints and its exit code.
func (p *page) bash(command string) (string, int) {
	ctx, cancel := context.WithTimeout(p.t.Context(), slow)
	defer cancel()
	c := exec.CommandContext(ctx, "bash", "-o", "pipefail", "-c", p.local(command))
	c.Dir, c.Env, c.WaitDelay = p.dir, p.env, patience
	out, err := c.CombinedOutput()
	if failed := new(exec.ExitError); err != nil && !errors.As(err, &failed) {
		return string(out) + err.Error(), -1
	}
	return string(out), c.ProcessState.ExitCode()
}

// process is a command that runs on.
type process struct {
	*exec.Cmd
	name string
	out  printed
	done chan struct{}
	told bool // the page has ended it; a second signal would cut its drain short
}

// printed is what a process has printed so far.
type printed struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *printed) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *printed) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// start starts a command that runs on, and waits until it has printed what is shown, or until the gateway is ready.
func (p *page) start(c shownCommand) {
	command := strings.Replace(c.text, " --demo", "", 1)
	if command != c.text {
		p.launch(p.local(demo))
	} else if tls := command == "headgate demo --tls"; tls || command == "headgate demo" {
		if command = demo; tls {
			command += " --tls --address 127.0.0.1:8443 --admin off"
		}
	}
	fields := strings.Fields(command)
	gateway := len(fields) > 2 && fields[1] == "run"
	if gateway {
		p.settle(fields[2])
		if old := p.gateway; old != nil && old.told { // a reader is slower than a gateway that drains
			select {
			case <-old.done:
			case <-time.After(slow):
			}
		}
	}
	run := p.launch(p.local(command))
	if gateway {
		p.gateway = run
		p.write("bin/pidof", "#!/bin/sh\necho "+itoa(run.Process.Pid)+"\n")
		p.must(os.Chmod(filepath.Join(p.dir, "bin", "pidof"), 0o755))
	}
	ready := func() bool {
		if c.output != "" {
			return fits(c.output, p.shown(run.out.String()), true)
		}
		reply, err := http.Get(p.local("http://127.0.0.1:9080/readyz"))
		if err != nil {
			return false
		}
		defer reply.Body.Close()
		return reply.StatusCode == http.StatusOK
	}
	for deadline := time.Now().Add(2 * patience); !ready(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.errorf("%s\nprints\n%s\nwant\n%s", c.text, p.logs(), c.output)
			return
		}
	}
}

// demo serves the shop on the page's ports; with --demo it has its own.
const demo = "headgate demo --orders 127.0.0.1:9101 --customers 127.0.0.1:9102 --products 127.0.0.1:9103"

func (p *page) launch(command string) *process {
	run := &process{Cmd: exec.Command("bash", "-c", "exec "+command), name: command, done: make(chan struct{})}
	run.Dir, run.Env, run.Stdout, run.Stderr = p.dir, p.env, &run.out, &run.out
	p.must(run.Start())
	p.running = append(p.running, run)
	go func() {
		defer close(run.done)
		run.Wait() // its exit code is looked at by end
	}()
	return run
}

// settle gives a document that leaves the ports to the defaults those of the page, in lines behind its own.
func (p *page) settle(name string) {
	path := filepath.Join(p.dir, name)
	files, err := filepath.Glob(filepath.Join(path, "*.yaml"))
	p.must(err)
	if len(files) == 0 {
		files = []string{path}
	}
	var all strings.Builder
	for _, f := range files {
		text, err := os.ReadFile(f)
		p.must(err)
		all.Write(text)
	}
	more := ""
	for key, line := range map[string]string{
		"admin": "admin: {address: \"127.0.0.1:9080\"}\n", "listeners": "listeners: {public: {address: \":8080\"}}\n",
	} {
		if !regexp.MustCompile(`(?m)^` + key + `:`).MatchString(all.String()) {
			more += p.local(line)
		}
	}
	if files[0] != path {
		p.write(filepath.Join(name, "zz-ports.yaml"), more)
		return
	}
	p.write(name, all.String()+more)
}

// logs returns what the running commands have printed, for a failure's message.
func (p *page) logs() string {
	var b strings.Builder
	for _, r := range p.running {
		fmt.Fprintf(&b, "\n%s printed\n%s", r.name, p.shown(r.out.String()))
	}
	return b.String()
}

// end stops in order what runs.
func (p *page) end() {
	for _, r := range slices.Backward(p.running) {
		if !r.told {
			_ = r.Process.Signal(syscall.SIGTERM) // that it has ended too early shows in its exit code
		}
		select {
		case <-r.done:
		case <-time.After(slow):
			_ = r.Process.Kill() // what it printed tells why
			<-r.done
		}
		if code := r.ProcessState.ExitCode(); code != 0 {
			p.t.Errorf("%s exits %d and printed\n%s", r.name, code, r.out.String())
		}
	}
}

// patch applies a diff without line numbers: what it takes away and what stands around must be there.
func (p *page) patch() {
	path := filepath.Join(p.dir, p.block.words["file"])
	old, err := os.ReadFile(path)
	p.must(err)
	rest := strings.SplitAfter(string(old), "\n")
	var out []string
	for line := range strings.Lines(p.block.text) {
		if line[0] == '+' {
			out = append(out, line[1:])
			continue
		}
		at := slices.Index(rest, line[1:])
		if at < 0 {
			p.errorf("%s has no line %q here", p.block.words["file"], line[1:])
			return
		}
		out, rest = append(out, rest[:at]...), rest[at+1:]
		if line[0] == ' ' {
			out = append(out, line[1:])
		}
	}
	p.must(os.WriteFile(path, []byte(strings.Join(append(out, rest...), "")), 0o644))
}

// taken are the ports that were handed out.
var taken sync.Map

// freePort returns a port of four digits that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	for n := range 7000 {
		port := itoa(2000 + (os.Getpid()*131+n)%7000)
		if _, was := taken.LoadOrStore(port, true); was || slices.Contains(documentedPorts, port) {
			continue
		}
		l, err := net.Listen("tcp", ":"+port)
		if err != nil {
			continue
		}
		if err := l.Close(); err == nil {
			return port
		}
	}
	t.Fatal("no port of four digits is free")
	return ""
}

func itoa(n int) string { return strconv.Itoa(n) }
