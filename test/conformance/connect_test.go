package conformance

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	// connectVariable says where the suite's programs are: a folder, or "fetch" to have them built into one that is removed.
	connectVariable = "HEADGATE_CONNECT"
	connectModule   = "connectrpc.com/conformance/cmd/..."
	connectVersion  = "v1.0.5" // the newest whose modules can all be had
)

// grpcFeatures are those of grpc-go's server, which speaks nothing but gRPC: gRPC-Web reaches it translated.
const grpcFeatures = `features:
  versions: [HTTP_VERSION_1, HTTP_VERSION_2, HTTP_VERSION_3]
  protocols: [PROTOCOL_GRPC, PROTOCOL_GRPC_WEB]
  codecs: [CODEC_PROTO]
  compressions: [COMPRESSION_IDENTITY, COMPRESSION_GZIP]
`

// connectFeatures are what both sides of the suite can do and a gateway could spoil.
const connectFeatures = `features:
  versions: [HTTP_VERSION_1, HTTP_VERSION_2, HTTP_VERSION_3]
  protocols: [PROTOCOL_CONNECT, PROTOCOL_GRPC, PROTOCOL_GRPC_WEB]
  codecs: [CODEC_PROTO, CODEC_JSON]
  compressions: [COMPRESSION_IDENTITY, COMPRESSION_GZIP]
  supports_tls_client_certs: true
  supports_half_duplex_bidi_over_http1: true
`

// TestConnectConformance runs the conformance suite of Connect, gRPC and gRPC-Web with the gateway between its reference
// client and its reference server, gRPC-Web translated and passed on:
//
//	HEADGATE_CONNECT=fetch go test ./test/conformance -run ConnectConformance -v -timeout 30m
func TestConnectConformance(t *testing.T) {
	programs := connectPrograms(t)
	gateway, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, features, server, web string }{
		{"gRPC-Web translated", connectFeatures, "referenceserver", "translate"},
		{"gRPC-Web passed on", connectFeatures, "referenceserver", "pass"},
		{"a service of gRPC alone", grpcFeatures, "grpcserver", "translate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			features := filepath.Join(t.TempDir(), "features.yaml")
			if err := os.WriteFile(features, []byte(c.features), 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
			defer cancel()
			suite := exec.CommandContext(ctx, filepath.Join(programs, "connectconformance"), "--mode", "both", "--conf", features, "--",
				filepath.Join(programs, "referenceclient"), "----", os.Args[0], "-test.run", "^TestConnectDriver$")
			suite.Env = append(os.Environ(), driverReference+"="+filepath.Join(programs, c.server),
				driverGateway+"="+gateway, driverWeb+"="+c.web)
			out, err := suite.CombinedOutput()
			passed, total := connectScore(string(out))
			t.Logf("connect conformance, %s: %d of %d", c.name, passed, total)
			if err != nil || total == 0 || passed != total {
				t.Errorf("%v\n%s", err, shortened(string(out)))
			}
		})
	}
}

// connectPrograms returns the folder of the suite's programs, or skips the test when nobody asked for it.
func connectPrograms(t *testing.T) string {
	t.Helper()
	dir := os.Getenv(connectVariable)
	switch dir {
	case "":
		t.Skipf("set %s to \"fetch\", or to the folder of the programs of %s@%s", connectVariable, connectModule, connectVersion)
	case "fetch":
		dir = t.TempDir()
		install := exec.CommandContext(t.Context(), "go", "install", connectModule+"@"+connectVersion)
		install.Dir = dir // outside of this module
		install.Env = append(os.Environ(), "GOBIN="+dir, "CGO_ENABLED=0")
		if out, err := install.CombinedOutput(); err != nil {
			t.Skipf("%s@%s cannot be fetched: %v\n%s", connectModule, connectVersion, err, shortened(string(out)))
		}
	}
	return dir
}

var connectTotals = regexp.MustCompile(`Total cases: (\d+)\n(\d+) passed`)

// connectScore reads the suite's last lines.
func connectScore(out string) (passed, total int) {
	if m := connectTotals.FindStringSubmatch(out); m != nil {
		total, _ = strconv.Atoi(m[1]) // digits
		passed, _ = strconv.Atoi(m[2])
	}
	return passed, total
}

// shortened keeps the end of what a program printed.
func shortened(s string) string {
	const most = 20_000
	if len(s) > most {
		s = "...\n" + s[len(s)-most:]
	}
	return strings.TrimSpace(s)
}
