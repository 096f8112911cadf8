package discover

import (
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"headgate/config/decode"
	"headgate/config/model"
)

// written reads a source as it stands in a document.
func written(t *testing.T, text string) (*model.Discover, string) {
	t.Helper()
	var node yaml.Node
	if err := yaml.Unmarshal([]byte(text), &node); err != nil {
		t.Fatal(err)
	}
	m := new(model.Discover)
	if problems := decode.Value(node.Content[0], m).In("d"); len(problems) > 0 {
		return m, problems.Error()
	}
	return m, ""
}

func TestSourcesInWords(t *testing.T) {
	for text, want := range map[string]string{
		"file: ./a.json":                        "file a.json",
		"docker: {}":                            "docker containers with headgate.upstream=shop of unix:///var/run/docker.sock",
		"docker: {labels: [a, b=c]}":            "docker containers with a, b=c of unix:///var/run/docker.sock",
		"docker: {label_prefix: x, network: n}": "docker containers with x.upstream=shop of unix:///var/run/docker.sock, network n",
		"kubernetes: {service: s}":              "kubernetes service s",
		"kubernetes: {service: s, namespace: n, port: 80, address: 'https://h:6443'}": "kubernetes service s.n, port 80, of https://h:6443",
	} {
		m, problem := written(t, text)
		if problem != "" {
			t.Errorf("%s: %s", text, problem)
			continue
		}
		if _, about, err := New("shop", m); about != want || err != nil {
			t.Errorf("%s: %q, %v", text, about, err)
		}
	}
}

// What is wrong with a source is told with its place in discover.
func TestWhatSourcesCannotBe(t *testing.T) {
	for _, test := range []struct{ text, place, says string }{
		{"scheme: http", "", "docker: {}, or kubernetes: {service}"},
		{"{docker: {}, kubernetes: {service: s}}", "", "dns, file, consul, docker and kubernetes exclude each other"},
		{"docker: {address: 'tcp://h:1/path'}", "docker.address", "is not a scheme, a host and a port"},
		{"docker: {address: 'tcp://h'}", "docker.address", "needs a port; Docker's are 2376"},
		{"docker: {address: 'https://u:p@h:1'}", "docker.address", "is not a scheme, a host and a port"},
		{"docker: {tls: {}}", "docker.tls", "is not asked over TLS"},
		{"consul: {service: s, tls: {ca: c}}", "consul.tls", "Consul's port for it is 8501"},
		{"consul: {service: s, address: 'https://t@h'}", "consul.address", "the token stands in token"},
		{"docker: {published: true, network: a}", "docker.network", "leave one of the two out"},
		{"docker: {labels: ['=a']}", "docker.labels.0", "write KEY or KEY=VALUE"},
		{"docker: {labels: [" + strings.Repeat("a,", 33) + "]}", "docker.labels", "33 are given; at most 32"},
		{"kubernetes: {service: s, address: 'https://h'}", "kubernetes.namespace", "write the service's"},
		{"kubernetes: {service: s, namespace: n, address: 'https://h/x'}", "kubernetes.address", "is not a scheme, a host and a port"},
		{"kubernetes: {service: s, namespace: n, address: 'http://h', token_file: t}", "kubernetes.address", "in clear; write https"},
		{"kubernetes: {service: s, namespace: n, address: 'http://h', ca: c}", "kubernetes.ca", "leave ca out"},
	} {
		m, problem := written(t, test.text)
		if problem != "" {
			t.Errorf("%s: %s", test.text, problem)
			continue
		}
		_, _, err := New("shop", m)
		found := false
		for _, e := range decode.Flatten(err) {
			at, placed := e.(*decode.PathError)
			found = found || placed && strings.Join(at.Path, ".") == test.place && strings.Contains(e.Error(), test.says)
		}
		if !found {
			t.Errorf("%s: %v; want %s at %q", test.text, err, test.says, test.place)
		}
	}
	for text, says := range map[string]string{
		"docker: {address: /var/run/docker.sock}":    "unix:///",
		"kubernetes: {service: Shop}":                "service",
		"kubernetes: {namespace: n}":                 "service",
		"kubernetes: {service: s, token: abc}":       "reference",
		"docker: {port: 70000}":                      "65535",
		"kubernetes: {service: s, port: '../../x'}":  "port",
		"kubernetes: {service: s, namespace: 'a/b'}": "namespace",
	} {
		if _, problem := written(t, text); !strings.Contains(problem, says) {
			t.Errorf("%s: %q; want %s", text, problem, says)
		}
	}
}

// A token never is in what is told of a source.
func TestATokenIsNotAmongTheWordsOfASource(t *testing.T) {
	t.Setenv("KUBE_TOKEN", "s3cret")
	m, problem := written(t, "kubernetes: {service: s, namespace: n, address: 'http://10.0.0.1:80', token: '${env:KUBE_TOKEN}'}")
	if problem != "" {
		t.Fatal(problem)
	}
	_, about, err := New("shop", m)
	if err == nil || strings.Contains(about+err.Error(), "s3cret") {
		t.Errorf("%s: %v", about, err)
	}
}
