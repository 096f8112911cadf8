// Package peers writes the configuration of each contestant and runs it: Headgate, nginx and HAProxy, each doing the same
// work in the best way that it offers without paying.
package peers

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"headgate/bench/documents"
)

// Settings is what a gateway shall do in one case.
type Settings struct {
	Dir         string // its own folder, absolute
	Listen      string // host:port of its public listener
	Admin       string // host:port of its metrics
	Upstream    string // host:port
	Files       int    // file descriptors that it may open
	Connections int    // that it must be able to hold, both sides together
	Generation  int    // > 0: what GET /generation answers, so that a reload can be seen
	Routes      []string
	Keys        []Key
	JWT         *JWT
	Log         string // access log of the scenario with keys
	Tuned       bool   // nginx alone: see NginxTuned
	Bodies      bool   // large bodies
	Reloads     bool   // the configuration will be replaced while it runs
	TLS         *TLS   // of the public listener, with HTTP/1.1 and HTTP/2
	GRPC        bool   // HTTP/2 in clear on both sides
	WebSocket   bool   // connections are switched
	Survival    *Survival
}

// TLS is the certificate of a listener: PEM files.
type TLS struct{ Cert, Key, Both string }

// Key is one consumer and its API key.
type Key struct{ Consumer, Value, SHA256 string }

// JWT is what tokens must be.
type JWT struct {
	Algorithm, Issuer, Audience, PEM string
	Tokens                           []string // for the client
}

//go:embed *.tmpl
var templates embed.FS

// Write renders the contestant's configuration into s.Dir and returns the main file's path. Every file is replaced by a
// rename, as an operator's tool would do it, so that a gateway that watches it never sees half of one.
func Write(kind Kind, s Settings) (string, error) {
	files := map[string]string{}
	main := ""
	var err error
	switch kind {
	case Nginx, NginxTuned:
		main = "nginx.conf"
		s.Tuned = kind == NginxTuned
		files[main], err = render(templates, s.template("nginx.conf.tmpl", "nginx-survive.conf.tmpl"), s)
	case HAProxy:
		main = "haproxy.cfg"
		files[main], err = render(templates, s.template("haproxy.cfg.tmpl", "haproxy-survive.cfg.tmpl"), s)
		files["keys.map"], files["routes.map"] = keyMap(s.keys()), routeMap(s.Routes)
	case Headgate:
		main = "headgate.yaml"
		files[main], err = render(documents.Files, document(s), s)
	default:
		err = fmt.Errorf("no contestant is called %q; there are %s", kind, strings.Join(Names(), ", "))
	}
	if err != nil {
		return "", err
	}
	if s.JWT != nil {
		files["public.pem"] = s.JWT.PEM
	}
	if s.Survival != nil && s.Survival.Discovery {
		files["targets.json"] = targetList(s.Survival.Targets)
	}
	return filepath.Join(s.Dir, main), replace(s.Dir, files)
}

// replace writes files in place of what was there.
func replace(dir string, files map[string]string) error {
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			return err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
	}
	return nil
}

// document returns which of Headgate's documents does what the settings ask.
func document(s Settings) string {
	switch {
	case s.Survival != nil:
		return "survive.yaml"
	case len(s.Keys) > 0:
		return "guarded.yaml"
	case s.JWT != nil:
		return "jwt.yaml"
	case len(s.Routes) > 0:
		return "routes.yaml"
	case s.TLS != nil || s.GRPC:
		return "doors.yaml"
	}
	return "plain.yaml"
}

func render(from fs.FS, name string, s Settings) (string, error) {
	below := func(base, path string) string { return strings.TrimPrefix(path, base) }
	t, err := template.New(name).Option("missingkey=error").Funcs(template.FuncMap{"Below": below}).ParseFS(from, name)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, s); err != nil {
		return "", err
	}
	return out.String(), nil
}

func keyMap(keys []Key) string {
	var b strings.Builder
	for _, k := range keys {
		fmt.Fprintf(&b, "%s %s\n", k.Value, k.Consumer)
	}
	return b.String()
}

func routeMap(routes []string) string {
	var b strings.Builder
	for _, r := range routes {
		fmt.Fprintf(&b, "%s/ origin\n", r)
	}
	return b.String()
}
