package h2

import "sync"

// workers are goroutines that carry one stream after another, so that their stacks have grown already.
type workers struct {
	shards [workerShards]struct {
		mu     sync.Mutex
		idle   []*worker
		closed bool
		_      [64]byte // shards are written by different cores
	}
}

type worker struct{ jobs chan job }

// job is a stream to be carried, or a connection of which something is to be written.
type job struct {
	s *stream
	c *conn
}

func (j job) run() {
	if j.s != nil {
		j.s.carry()
		return
	}
	j.c.writeAll()
}

// run has a goroutine do the job. The one that was idle last is taken: its stack is warm.
func (w *workers) run(shard uint32, j job) {
	sh := &w.shards[shard%workerShards]
	sh.mu.Lock()
	if n := len(sh.idle); n > 0 {
		free := sh.idle[n-1]
		sh.idle[n-1] = nil
		sh.idle = sh.idle[:n-1]
		sh.mu.Unlock()
		free.jobs <- j // it has room for one
		return
	}
	sh.mu.Unlock()
	go w.work(shard, j)
}

func (w *workers) work(shard uint32, j job) {
	sh := &w.shards[shard%workerShards]
	me := &worker{jobs: make(chan job, 1)}
	for more := true; more; j, more = <-me.jobs {
		j.run()
		sh.mu.Lock()
		if sh.closed || len(sh.idle) >= idleWorkers {
			sh.mu.Unlock()
			return
		}
		sh.idle = append(sh.idle, me)
		sh.mu.Unlock()
	}
}

// close ends the idle ones, and the others when they have done what they are doing.
func (w *workers) close() {
	for i := range w.shards {
		sh := &w.shards[i]
		sh.mu.Lock()
		sh.closed = true
		for _, free := range sh.idle {
			close(free.jobs)
		}
		sh.idle = nil
		sh.mu.Unlock()
	}
}
