package discover

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestListsInFiles(t *testing.T) {
	tests := []struct {
		content string
		want    []Target
		problem string
	}{
		{"- 10.0.0.4:9000\n- '[::1]:80'\n", []Target{{Address: "10.0.0.4:9000", Weight: 1}, {Address: "[::1]:80", Weight: 1}}, ""},
		{`["a:1", {"address": "b:1", "weight": 3, "zone": "x", "draining": true, "host": "b.example", "priority": 2}]`,
			[]Target{{Address: "a:1", Weight: 1}, {Address: "b:1", Weight: 3, Priority: 2, Zone: "x", Draining: true, Host: "b.example"}}, ""},
		{"", nil, "names no target"},
		{"# nobody\n", nil, "names no target"},
		{"a: 1", nil, "list"},
		{"- {adress: a:1}", nil, "adress"},
		{"- {address: a:1, weight: 2000}", nil, "1000"},
		{"- [", nil, "neither JSON nor YAML"},
		{"- ${env:HOME}:80", nil, "reference"},
	}
	for _, test := range tests {
		got, err := parse("t.yaml", []byte(test.content))
		if test.problem == "" && (err != nil || !reflect.DeepEqual(got, test.want)) {
			t.Errorf("%q: %v, %v", test.content, got, err)
		}
		if test.problem != "" && (err == nil || !strings.Contains(err.Error(), test.problem)) {
			t.Errorf("%q: %v", test.content, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("- a:1\n- {address: b:1, weight: 3}")
	f.Add(`[{"address":"a:1"}]`)
	f.Add("- &a a:1\n- *a")
	f.Fuzz(func(t *testing.T, s string) {
		if list, err := parse("f", []byte(s)); err == nil {
			_, _ = inspect(list)
		}
	})
}

func TestAFileIsFollowed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "targets.yaml")
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	answers := make(chan string, 100)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		file{path}.Watch(ctx, func(list []Target, err error) {
			if err != nil {
				answers <- "error"
				return
			}
			answers <- letters(list)
		})
	}()
	expect := func(want string) {
		t.Helper()
		for deadline := time.After(30 * time.Second); ; {
			select {
			case got := <-answers:
				if got == want {
					return
				}
			case <-deadline:
				t.Fatalf("never %s", want)
			}
		}
	}
	expect("error") // it is not there yet
	put("[a:1]")
	expect("a")
	put("[a:1, b:1]")
	expect("ab")
	put("[")
	expect("error")
	put("[a:1, b:1]")
	expect("ab")
	stop()
	<-ended
}
