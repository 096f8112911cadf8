package secure

import (
	"path/filepath"

	"headgate/config/model"
)

// located returns the settings with every path in them ready to be opened: relative ones begin in the folder of the file
// that says them. What was there before is left as it is.
func located(t model.ListenerTLS, folder string) model.ListenerTLS {
	path := func(name string) string {
		if name == "" {
			return ""
		}
		if filepath.IsAbs(name) {
			return filepath.Clean(name)
		}
		return filepath.Join(folder, name)
	}
	paths := func(names []string) (all []string) {
		for _, n := range names {
			all = append(all, path(n))
		}
		return all
	}
	certificates := t.Certificates
	t.Certificates = nil
	for _, c := range certificates {
		t.Certificates = append(t.Certificates, model.Certificate{Cert: path(c.Cert), Key: path(c.Key)})
	}
	if t.ACME != nil {
		a := *t.ACME
		a.Roots, a.Storage = path(a.Roots), path(a.Storage)
		t.ACME = &a
	}
	if t.ClientAuth != nil {
		a := *t.ClientAuth
		a.CA, a.CRL = paths(a.CA), paths(a.CRL)
		t.ClientAuth = &a
	}
	return t
}
