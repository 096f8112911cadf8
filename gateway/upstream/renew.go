package upstream

import (
	"time"

	"headgate/config/decode"
)

// renew reads the files of the identity again if they look different, and gives every target new pools: what was opened
// under the old identity is used to its end and then closed, and sessions under it are not resumed. A file that is wrong
// changes nothing but what operators see.
func (u *Upstream) renew() {
	u.changing.Lock()
	defer u.changing.Unlock()
	old := u.identity.Load()
	if u.closed || !old.changed() {
		return
	}
	id, err := readIdentity(u.config.TLS)
	if err != nil {
		kept := *old
		kept.stamps, kept.problem = id.stamps, explain(err)
		u.identity.Store(&kept)
		u.env.Log.Error("a file for TLS with targets cannot be used; what was read before stays", "error", kept.problem)
		return
	}
	u.identity.Store(id)
	for _, t := range u.set.Load().targets {
		t.pool.Swap(newPool(t, id)).close()
	}
	u.env.Log.Info("the files for TLS with targets were read again")
}

// explain puts the problems into one line.
func explain(err error) (s string) {
	for _, e := range decode.Flatten(err) {
		if s != "" {
			s += "; "
		}
		s += e.Error()
	}
	return s
}

// warn tells, whenever a document goes live, what makes an upstream less safe than it should be.
func (u *Upstream) warn() {
	if u.identity.Load().insecure {
		u.env.Log.Warn("certificates of targets are not verified: insecure_skip_verify is on")
	}
}

// shut ends the probes and closes the pools; a renewal makes no others.
func (u *Upstream) shut() {
	u.changing.Lock()
	defer u.changing.Unlock()
	u.closed, u.watching = true, false
	retire(u.set.Load().targets)
}

// CertificateStatus is what operators see of the certificate that an upstream shows to its targets.
type CertificateStatus struct {
	Subject  string    `json:"subject,omitempty"`
	NotAfter time.Time `json:"not_after"`
	Days     int       `json:"days_left"` // negative: it has expired
}

// certificate describes our own certificate; nil: there is none.
func (u *Upstream) certificate() *CertificateStatus {
	own := u.identity.Load().own
	if own == nil {
		return nil
	}
	return &CertificateStatus{
		Subject: own.Subject.String(), NotAfter: own.NotAfter,
		Days: int(own.NotAfter.Sub(u.env.Clock.Now()).Hours() / 24),
	}
}
