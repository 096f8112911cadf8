package upstream

// renew reads the files of the identity again if they look different, and gives every target new pools: what was opened
// under the old identity is used to its end and then closed, and sessions under it are not resumed. A file that is wrong
// changes nothing but what operators see.
func (u *Upstream) renew() {
	u.changing.Lock()
	defer u.changing.Unlock()
	id, err := u.identity.Load().Renewed()
	if u.closed || id == nil {
		return
	}
	u.identity.Store(id)
	if err != nil {
		u.env.Log.Error("a file for TLS with targets cannot be used; what was read before stays", "error", id.Problem())
		return
	}
	for _, t := range u.set.Load().targets {
		old := t.pool.Load()
		t.pool.Store(old.Renewed(id))
		old.Close()
	}
	u.env.Log.Info("the files for TLS with targets were read again")
}

// warn tells, whenever a document goes live, what makes an upstream less safe than it should be.
func (u *Upstream) warn() {
	if u.identity.Load().Insecure() {
		u.env.Log.Warn("certificates of targets are not verified: insecure_skip_verify is on")
	}
}

// shut ends the probes and closes the pools; a renewal makes no others.
func (u *Upstream) shut() {
	u.changing.Lock()
	defer u.changing.Unlock()
	u.closed, u.watching = true, false
	retire(u.set.Load().targets)
	u.health.Close()
}
