// Package authority is a node's own certificate authority, so that HTTPS works on a laptop and in tests without asking
// anybody. Its root stays in a folder; what it issues is short-lived and never touches a disk.
package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"headgate/internal/clock"
)

const (
	// rootLife is how long a root is valid. It is trusted by hand, so it must last.
	rootLife = 10 * 365 * 24 * time.Hour
	// rootMargin is how long a root must still be valid to be used; a new one is made, and must be trusted, before that.
	rootMargin = 2 * leafLife
	// leafLife is how long an issued certificate is valid. A stolen key is of use no longer than that.
	leafLife = 7 * 24 * time.Hour
	// leafRenewal is the age at which a certificate is replaced by a new one.
	leafRenewal = leafLife / 2
	// backdate makes certificates valid a little earlier, for clients whose clock is behind.
	backdate = time.Hour
	// maxFile bounds what is read as the authority's file; one has about two KiB.
	maxFile = 64 << 10
)

const (
	pairFile = "authority.pem" // certificate and private key, in one file so that two processes cannot mix two pairs
	rootFile = "root.pem"      // the certificate alone, for those who shall trust it
)

// Authority issues certificates for names of this machine and its private network. It is safe for concurrent use.
type Authority struct {
	folder string
	clock  clock.Clock
	root   *x509.Certificate
	key    *ecdsa.PrivateKey
}

// Open returns the authority whose root is in the folder, and makes both when they are not there. Processes that do so at
// one time get the same root.
func Open(folder string, c clock.Clock) (*Authority, error) {
	a, err := load(folder, c)
	if errors.Is(err, os.ErrNotExist) {
		if err = create(folder, c.Now()); err == nil {
			a, err = load(folder, c)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the internal authority: %w", err)
	}
	if err := a.publish(); err != nil {
		return nil, fmt.Errorf("the internal authority: %w", err)
	}
	return a, nil
}

// Root returns the root's certificate in PEM.
func (a *Authority) Root() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.root.Raw})
}

// RootFile returns the file in which the root's certificate stands, for curl --cacert and the like.
func (a *Authority) RootFile() string { return filepath.Join(a.folder, rootFile) }

// NotAfter returns when the root ends.
func (a *Authority) NotAfter() time.Time { return a.root.NotAfter }

// load reads the root and its key.
func load(folder string, c clock.Clock) (*Authority, error) {
	path := filepath.Join(folder, pairFile)
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s may be read by others than its owner (mode %04o); its key is not secret any more: remove the file so that a "+
			"new authority is made, or write chmod 600 if you know that nobody has read it", path, info.Mode().Perm())
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s has %d bytes, which is no certificate with its key; at most %d", path, info.Size(), maxFile)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	a := &Authority{folder: folder, clock: c}
	if err := a.parse(content); err != nil {
		return nil, fmt.Errorf("%s: %w; remove the file so that a new authority is made", path, err)
	}
	if end := a.root.NotAfter; c.Now().Add(rootMargin).After(end) {
		return nil, fmt.Errorf("%s: the root ends %s; remove the file so that a new authority is made, and trust that", path,
			end.Format(time.RFC3339))
	}
	return a, nil
}

func (a *Authority) parse(content []byte) error {
	for {
		var b *pem.Block
		if b, content = pem.Decode(content); b == nil {
			break
		}
		var err error
		switch b.Type {
		case "CERTIFICATE":
			a.root, err = x509.ParseCertificate(b.Bytes)
		case "EC PRIVATE KEY":
			a.key, err = x509.ParseECPrivateKey(b.Bytes)
		}
		if err != nil {
			return err
		}
	}
	switch {
	case a.root == nil || a.key == nil:
		return errors.New("it does not hold a certificate and its key")
	case !a.key.PublicKey.Equal(a.root.PublicKey):
		return errors.New("the key is not the certificate's")
	}
	return nil
}

// create makes a root. When another process is faster, its root stays.
func create(folder string, now time.Time) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	number, err := serial()
	if err != nil {
		return err
	}
	host, _ := os.Hostname() // only a name for people
	der, err := x509.CreateCertificate(rand.Reader, rootTemplate(number, host, now), rootTemplate(number, host, now), &key.PublicKey, key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	content := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: secret})...)
	temporary, err := writeTemporary(folder, content, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temporary) }() // it has another name by now
	// A link fails when the name is taken, where a rename would replace what another process already issues by.
	if err := os.Link(temporary, filepath.Join(folder, pairFile)); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

// rootTemplate describes a root that can speak for private names only: whoever trusts it risks nothing else.
func rootTemplate(number *big.Int, host string, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: number,
		Subject:      pkix.Name{Organization: []string{"Headgate"}, CommonName: "Headgate internal authority, " + host},
		NotBefore:    now.Add(-backdate), NotAfter: now.Add(rootLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage:                    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         domains(),
		PermittedIPRanges:           ranges(),
	}
}

// publish writes the root's certificate beside the pair, if it does not stand there yet.
func (a *Authority) publish() error {
	if old, err := os.ReadFile(a.RootFile()); err == nil && string(old) == string(a.Root()) {
		return nil
	}
	temporary, err := writeTemporary(a.folder, a.Root(), 0o644)
	if err != nil {
		return err
	}
	return os.Rename(temporary, a.RootFile())
}

// writeTemporary writes a file of the folder to be linked or renamed to its name, whole and on the disk.
func writeTemporary(folder string, content []byte, mode os.FileMode) (path string, err error) {
	f, err := os.CreateTemp(folder, ".new-*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

// serial returns a random number of 127 bits (RFC 5280 section 4.1.2.2: positive, at most 20 octets).
func serial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

// domains are the names that no public authority issues for: RFC 2606 and 6761, .local of RFC 6762, .home.arpa of
// RFC 8375, and .internal, which ICANN reserved in 2024. Each stands for what is below it, too.
func domains() []string {
	return []string{"localhost", "test", "example", "invalid", "local", "home.arpa", "internal"}
}

// ranges are the addresses of this machine and of private networks: loopback, RFC 1918, RFC 4193 and link-local.
func ranges() (list []*net.IPNet) {
	for _, s := range []string{"127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "::1/128", "fc00::/7",
		"fe80::/10"} {
		if _, n, err := net.ParseCIDR(s); err == nil {
			list = append(list, n)
		}
	}
	return list
}
