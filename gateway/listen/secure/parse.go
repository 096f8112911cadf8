package secure

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
)

const (
	// maxFile bounds what is read as a certificate, a key or a bundle of authorities: a wrong path must not fill the memory.
	maxFile = 4 << 20
	// maxChain bounds the certificates of one chain, which is sent in every handshake.
	maxChain = 16
	// leastRSA is the shortest RSA key, in bits, that is still believed to be safe (NIST SP 800-131A).
	leastRSA = 2048
)

// The parts of a pair, as the document calls them.
const (
	inCert = "cert"
	inKey  = "key"
)

// fault is what keeps a pair from being used, and in which of its files it is.
type fault struct {
	part    string // inCert or inKey
	message string
	passing bool // it depends on the time, not only on the files
}

// Error tells the fault alone; who reports it names the place.
func (f *fault) Error() string { return f.message }

func faulty(part, format string, args ...any) *fault {
	return &fault{part: part, message: fmt.Sprintf(format, args...)}
}

// readFile reads a small regular file. Its error names the path.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s does not exist", path)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%s may not be read by this user; give the gateway's user the right to", path)
	case err != nil:
		return nil, fmt.Errorf("%s cannot be read: %w", path, err)
	case !info.Mode().IsRegular(): // opening a pipe would wait for its writer
		return nil, fmt.Errorf("%s is not a file; name a PEM file", path)
	case info.Size() > maxFile:
		return nil, fmt.Errorf("%s has %d bytes; a PEM file of this kind has at most %d", path, info.Size(), maxFile)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w", path, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w", path, err)
	}
	return b, nil
}

// parsePair makes a certificate of the contents of its two files. paths are for messages. Warnings are about what is used
// all the same.
func parsePair(paths files, cert, key []byte, now time.Time) (*tls.Certificate, []string, *fault) {
	chain, err := parseCertificates(cert)
	if err != nil {
		return nil, nil, faulty(inCert, "%s %s", paths.Cert, err)
	}
	if len(chain) > maxChain {
		return nil, nil, faulty(inCert, "%s holds %d certificates, all of which would be sent in every handshake; keep the certificate and "+
			"its intermediates, at most %d", paths.Cert, len(chain), maxChain)
	}
	private, err := parseKey(key)
	if err != nil {
		return nil, nil, faulty(inKey, "%s %s", paths.Key, err)
	}
	leaf := chain[0]
	if f := checkKey(paths, leaf); f != nil {
		return nil, nil, f
	}
	if f := fits(paths, chain, private.Public()); f != nil {
		return nil, nil, f
	}
	c := &tls.Certificate{PrivateKey: private, Leaf: leaf}
	for _, x := range chain {
		c.Certificate = append(c.Certificate, x.Raw)
	}
	return c, warnings(chain, now), nil
}

// parseCertificates reads every certificate of a PEM file. Its error goes on after the file's name.
func parseCertificates(content []byte) (chain []*x509.Certificate, err error) {
	var others []string
	for rest := content; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type != "CERTIFICATE" && b.Type != "X509 CERTIFICATE" {
			others = append(others, b.Type)
			continue
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("holds a certificate that cannot be read, number %d: %w", len(chain)+1, err)
		}
		chain = append(chain, c)
	}
	switch {
	case len(chain) > 0:
		return chain, nil
	case slices.Contains(others, "CERTIFICATE REQUEST") || slices.Contains(others, "NEW CERTIFICATE REQUEST"):
		return nil, errors.New("holds a request for a certificate, which an authority has still to sign; name the file that it gave back")
	case len(others) > 0:
		return nil, fmt.Errorf("holds no certificate, but %s", strings.Join(others, ", "))
	case len(bytes.TrimSpace(content)) == 0:
		return nil, errors.New("is empty")
	case content[0] == 0x30:
		return nil, errors.New("is in DER, not in PEM; convert it: openssl x509 -inform der -in FILE -out FILE.pem")
	}
	return nil, errors.New("is not a PEM file: it has no line -----BEGIN CERTIFICATE-----")
}

// parseKey reads the first private key of a PEM file. Its error goes on after the file's name and tells nothing of the key.
func parseKey(content []byte) (crypto.Signer, error) {
	for rest := content; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(b.Headers["Proc-Type"], "ENCRYPTED") {
			return nil, errors.New("is encrypted with a passphrase, which nobody is there to type; decrypt it: openssl pkey -in FILE -out FILE.pem")
		}
		if b.Type != "PRIVATE KEY" && !strings.HasSuffix(b.Type, " PRIVATE KEY") {
			continue
		}
		return parsePrivate(b.Bytes)
	}
	return nil, errors.New("holds no private key; PKCS #8 (BEGIN PRIVATE KEY), PKCS #1 (BEGIN RSA PRIVATE KEY) or SEC 1 " +
		"(BEGIN EC PRIVATE KEY) in PEM are read")
}

func parsePrivate(der []byte) (crypto.Signer, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		if rsaKey, other := x509.ParsePKCS1PrivateKey(der); other == nil {
			return rsaKey, nil
		}
		if ecKey, other := x509.ParseECPrivateKey(der); other == nil {
			return ecKey, nil
		}
		return nil, errors.New("holds a private key that cannot be read: it is damaged, or of a kind that TLS does not use")
	}
	switch key := key.(type) {
	case *rsa.PrivateKey:
		return key, nil
	case *ecdsa.PrivateKey:
		return key, nil
	case ed25519.PrivateKey:
		return key, nil
	}
	return nil, fmt.Errorf("holds a key that cannot sign (%T); RSA, ECDSA and Ed25519 keys can", key)
}

// checkKey refuses keys that are too weak, or that no client of TLS can use.
func checkKey(paths files, leaf *x509.Certificate) *fault {
	switch key := leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		if n := key.N.BitLen(); n < leastRSA {
			return faulty(inCert, "%s has an RSA key of %d bits, which can be broken; at least %d are needed, and ECDSA P-256 is faster",
				paths.Cert, n, leastRSA)
		}
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P224() {
			return faulty(inCert, "%s has a key on the curve P-224, which TLS does not use; use P-256", paths.Cert)
		}
	case ed25519.PublicKey:
	default:
		return faulty(inCert, "%s has a key of a kind that TLS does not use (%s); use ECDSA P-256 or RSA", paths.Cert, leaf.PublicKeyAlgorithm)
	}
	return nil
}

// fits checks that the key is the first certificate's.
func fits(paths files, chain []*x509.Certificate, public crypto.PublicKey) *fault {
	for i, c := range chain {
		if known, ok := c.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !known.Equal(public) {
			continue
		}
		if i > 0 {
			return faulty(inCert, "%s is in the wrong order: the key is that of certificate number %d (%s); that one comes first, then its "+
				"intermediates, each followed by its issuer", paths.Cert, i+1, c.Subject)
		}
		return nil
	}
	return faulty(inKey, "%s is not the key of the certificate in %s (%s); the two files do not belong together", paths.Key, paths.Cert,
		chain[0].Subject)
}
