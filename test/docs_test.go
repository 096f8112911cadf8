package test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"headgate/internal/testkit"
)

// TestDocs executes README.md, ARCHITECTURE.md and the pages of docs/ as a reader would: every document is checked by the
// real binary, every command is run, and what the page shows of its output is compared. The conventions are told in
// docs/README.md. One page alone:
//
//	go test ./test -run TestDocs/operating
func TestDocs(t *testing.T) {
	binary, err := testkit.Build(t.Context(), t.TempDir(), false)
	if err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob("../docs/*.md")
	if err != nil || len(paths) == 0 {
		t.Fatalf("found no pages: %v", err)
	}
	for _, path := range append([]string{"../README.md", "../ARCHITECTURE.md"}, paths...) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(path, "../")
		t.Run(strings.TrimSuffix(strings.TrimPrefix(name, "docs/"), ".md"), func(t *testing.T) {
			t.Parallel()
			blocks, faults := fencedBlocks(name, string(text))
			for _, f := range faults {
				t.Error(f)
			}
			newPage(t, binary, blocks).run(blocks)
		})
	}
}

// TestReadmeShowsWhatMakeRunPrints holds the three commands that `make run` prints against those that the README explains.
func TestReadmeShowsWhatMakeRunPrints(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := regexp.MustCompile(`curl -i [^#']*[^#' ]`).FindAllString(recipe(t, "run"), -1)
	if len(commands) != 3 {
		t.Fatalf("make run prints %d commands to try: %q", len(commands), commands)
	}
	for _, c := range commands {
		if !strings.Contains(string(readme), "$ "+c+"\n") {
			t.Errorf("README.md does not show %q", c)
		}
	}
}

func TestOutputFitsWhatAPageShows(t *testing.T) {
	for _, c := range []struct {
		shown, output string
		fits          bool
	}{
		{"one", "one\n", true},
		{"one", "one\ntwo\n", false},
		{"", "", true},
		{"", "one\n", false},
		{"a ... c", "a b c\n", true},
		{"a ... c", "a b\nc\n", false},
		{"one\n...", "one\n", true},
		{"one\n...\nfour", "one\ntwo\nthree\nfour\n", true},
		{"one\n...\nfour", "one\ntwo\nthree\n", false},
		{"...\nfour", "one\nfour\n", true},
		{"1.5", "125\n", false},
		{"HTTP/1.1 200 OK\nDate: ...\n\nbody", "HTTP/1.1 200 OK\r\nDate: today\r\n\r\nbody", true},
	} {
		if got := fits(c.shown, c.output, false); got != c.fits {
			t.Errorf("%q shown, %q printed: fits %v, want %v", c.shown, c.output, got, c.fits)
		}
	}
	if !fits("one", "one\ntwo\n", true) || fits("two", "one\n", true) {
		t.Error("of what runs on, the beginning is compared")
	}
}

func TestBlocksOfUnknownKindAreFaults(t *testing.T) {
	const fence = "```"
	for _, c := range []struct {
		text   string
		blocks int
		fault  string
	}{
		{"text\n" + fence + "yaml file=a.yaml bad\na: 1\n" + fence + "\n", 1, ""},
		{"- item\n  " + fence + "sh\n  make test\n  " + fence + "\n", 1, ""},
		{fence + "\na\n" + fence + "\n", 0, "page.md:1: "},
		{"\n" + fence + "toml\na\n" + fence + "\n", 0, "page.md:2: "},
		{fence + "yaml colour=red\na\n" + fence + "\n", 0, "page.md:1: "},
		{fence + "sh\na\n", 0, "page.md:1: "},
		{fence + "`markdown file=a\n" + fence + "toml\na\n" + fence + "\n" + fence + "`\n", 1, ""},
	} {
		blocks, faults := fencedBlocks("page.md", c.text)
		if len(blocks) != c.blocks || (len(faults) > 0) != (c.fault != "") || len(faults) > 0 && !strings.HasPrefix(faults[0], c.fault) {
			t.Errorf("%q: %d blocks, faults %q", c.text, len(blocks), faults)
		}
	}
	blocks, _ := fencedBlocks("page.md", "- item\n  "+fence+"yaml under=apis.shop bad\n  a:\n    b: 1\n  "+fence+"\n")
	if b := blocks[0]; b.text != "a:\n  b: 1\n" || b.words["under"] != "apis.shop" || !b.has("bad") || b.line != 2 {
		t.Errorf("read as %+v", b)
	}
}

// block is one fenced block of a page.
type block struct {
	page  string
	line  int
	kind  string
	words map[string]string // of the info string
	text  string
}

func (b block) has(word string) bool { _, ok := b.words[word]; return ok }

// kinds lists the kinds of blocks and what their info strings may say.
var kinds = map[string][]string{
	"yaml":     {"file", "under", "bad", "env"},
	"console":  {"runs"},
	"sh":       {},
	"json":     {},
	"go":       {"file"},
	"markdown": {"file"},
	"diff":     {"file"},
}

var fenceLine = regexp.MustCompile("^( *)(```+)(.*)$")

// fencedBlocks returns the fenced blocks of a page, and what is wrong with them.
func fencedBlocks(page, text string) (blocks []block, faults []string) {
	lines := strings.Split(text, "\n")
	fault := func(line int, what string) { faults = append(faults, page+":"+itoa(line)+": "+what) }
	for i := 0; i < len(lines); i++ {
		m := fenceLine.FindStringSubmatch(lines[i])
		if m == nil {
			continue
		}
		indent, fence, info := m[1], m[2], m[3]
		b := block{page: page, line: i + 1, words: map[string]string{}}
		for n, word := range strings.Fields(info) {
			key, value, _ := strings.Cut(word, "=")
			if n == 0 {
				b.kind = word
			} else {
				b.words[key] = value
			}
		}
		for i++; i < len(lines) && strings.TrimSpace(lines[i]) != fence; i++ {
			b.text += strings.TrimPrefix(lines[i], indent) + "\n"
		}
		known, ok := kinds[b.kind]
		switch {
		case i == len(lines):
			fault(b.line, "this block has no end")
			continue
		case !ok:
			fault(b.line, "nobody tests a block of kind "+b.kind+"; see docs/README.md")
			continue
		}
		good := true
		for word := range b.words {
			if !slices.Contains(known, word) {
				fault(b.line, "a block of kind "+b.kind+" cannot say "+word)
				good = false
			}
		}
		if good {
			blocks = append(blocks, b)
		}
	}
	return blocks, faults
}

// fits compares what a command printed with what the page shows of it. "..." stands for anything in a line, and alone on
// one for any number of lines. Of what runs on only the beginning is compared.
func fits(shown, output string, runsOn bool) bool {
	output = strings.ReplaceAll(output, "\r\n", "\n")
	if output != "" && !strings.HasSuffix(output, "\n") {
		output += "\n"
	}
	var re strings.Builder
	re.WriteString(`^`)
	for line := range strings.Lines(shown) {
		if line = strings.TrimRight(line, "\n"); line == "..." {
			re.WriteString(`(?:.*\n)*`)
			continue
		}
		re.WriteString(strings.ReplaceAll(regexp.QuoteMeta(strings.TrimRight(line, " ")), `\.\.\.`, `.*`) + ` *\n`)
	}
	if !runsOn {
		re.WriteString(`$`)
	}
	return regexp.MustCompile(re.String()).MatchString(output)
}

// patience is how long a command may take, and how long it is repeated until its output fits: files are watched, logs are
// written a little later.
const patience = 30 * time.Second
