package survive

import (
	"context"
	"errors"
	"maps"
	"time"

	"headgate/bench/fleet"
)

// Scenario is one thing that happens.
type Scenario struct {
	Behaviour fleet.Behaviour
	Targets   int
	Spare     int   // the last of these, which the gateway does not know at first
	Rates     []int // of the clients, each a consumer of its own when there is more than one
	Figures   []Figure
	Play      func(*Stage, context.Context) (Figures, error)
}

// quick is a target that can answer 400 requests/s: three are asked for a quarter of what they can do, and one that has become ten
// times slower could not do a third of that.
func quick() fleet.Behaviour { return fleet.Behaviour{Service: 10 * time.Millisecond, Workers: 4} }

const (
	quickRate  = 300
	slower     = 10
	slowAt     = 10 * time.Second
	slowFor    = 30 * time.Second
	killAt     = 4 * time.Second
	awayFor    = 8 * time.Second
	backFor    = 8 * time.Second
	watchEvery = 10 * time.Millisecond
	atTheEnd   = 2 * time.Second

	// learnFor is how long the overload lasts before it counts: nginx and HAProxy are told what the target can do, and Headgate
	// finds it out. What becomes of requests meanwhile has a figure of its own.
	learnFor    = 15 * time.Second
	overloadFor = 10 * time.Second
	patience    = time.Second // twenty times the service time: who asked has gone then
	replaceFor  = 8 * time.Second
	replaced    = 3               // targets, each by another
	tailKnown   = 2 * time.Second // until then Headgate finds out what takes long
	tailFor     = 15 * time.Second
	tailRate    = 300
)

// limited is an upstream of one target that can answer 200 requests/s.
func limited() fleet.Behaviour { return fleet.Behaviour{Service: 50 * time.Millisecond, Workers: 10} }

// Slower makes one of three targets ten times slower, when it cannot do its share any more.
func Slower() Scenario {
	return Scenario{
		Behaviour: quick(), Targets: 3, Rates: []int{quickRate}, Play: (*Stage).slower,
		Figures: []Figure{BeforeP99, AfterP50, AfterP99, AfterP999, AfterMax, P99Growth, SlowShare, Failed},
	}
}

func (s *Stage) slower(ctx context.Context) (Figures, error) {
	const last = 2
	var before, after []int
	p, err := s.play(ctx, slowAt+slowFor,
		step{slowAt, func() error {
			slow := s.Targets[last].Slow(ctx, quick().Service*slower)
			return errors.Join(slow, s.count(ctx, 0, &before).do())
		}},
		s.count(ctx, slowAt+slowFor, &after))
	if err != nil {
		return nil, err
	}
	o := p.clients[0]
	healthy, then := o.due(p.at[0]/5, p.at[0]), o.due(p.at[0], p.lasted)
	return Figures{
		BeforeP99: healthy.served().millis(0.99), AfterP50: then.served().millis(0.5), AfterP99: then.served().millis(0.99),
		AfterP999: then.served().millis(0.999), AfterMax: then.served().millis(1),
		P99Growth: then.served().millis(0.99) / healthy.served().millis(0.99),
		SlowShare: share(before, after, last), Failed: o.failed(),
	}, nil
}

// Killed ends one of three targets with SIGKILL and brings it back.
func Killed() Scenario {
	return Scenario{
		Behaviour: quick(), Targets: 3, Rates: []int{quickRate}, Play: (*Stage).killed,
		Figures: []Figure{FailedAway, AwayP99, AwayP999, AwayMax, FailedBack, BackP999, AskedAgain, BackShare, Failed},
	}
}

func (s *Stage) killed(ctx context.Context) (Figures, error) {
	const last = 2
	victim := s.Targets[last]
	var again time.Duration
	var near, end []int
	p, err := s.play(ctx, killAt+awayFor+backFor,
		step{killAt, func() error { return victim.KillRemembering(ctx) }},
		step{killAt + awayFor, func() (err error) {
			again, err = askedAgain(ctx, victim, s.pace(backFor-atTheEnd))
			return err
		}},
		s.count(ctx, killAt+awayFor+backFor-atTheEnd, &near),
		s.count(ctx, killAt+awayFor+backFor, &end))
	if err != nil {
		return nil, err
	}
	o := p.clients[0]
	away, back := o.due(p.at[0]-quick().Service*slower, p.at[1]), o.due(p.at[1], p.lasted)
	return Figures{
		FailedAway: away.failed(), AwayP99: away.served().millis(0.99), AwayP999: away.served().millis(0.999), AwayMax: away.served().millis(1),
		FailedBack: back.failed(), BackP999: back.served().millis(0.999),
		AskedAgain: millis(again), BackShare: share(near, end, last), Failed: o.failed(),
	}, nil
}

// askedAgain brings a target back and returns how long it took until the gateway asked it; at most within.
func askedAgain(ctx context.Context, t *fleet.Target, within time.Duration) (time.Duration, error) {
	before, err := t.Asked(ctx)
	if err = errors.Join(err, t.Back(ctx)); err != nil {
		return 0, err
	}
	began := time.Now()
	for time.Since(began) < within {
		n, err := t.Asked(ctx)
		if err != nil || n > before {
			return time.Since(began), err
		}
		if err := until(ctx, time.Now().Add(watchEvery)); err != nil {
			return 0, err
		}
	}
	return within, nil
}

// Overloaded offers an upstream twice what it can do.
func Overloaded() Scenario {
	return Scenario{
		Behaviour: limited(), Targets: 1, Rates: []int{2 * int(limited().Capacity())}, Play: (*Stage).overloaded,
		Figures: []Figure{Goodput, ServedP50, ServedP99, ServedTime, Refused, Told, RefusedP50, RefusedP99, Late, Failed, Learning},
	}
}

func (s *Stage) overloaded(ctx context.Context) (Figures, error) {
	p, err := s.play(ctx, learnFor+overloadFor)
	if err != nil {
		return nil, err
	}
	return overload(p.clients[0], limited().Capacity(), limited().Service, patience, s.pace(learnFor), p.lasted), nil
}

// Unfair offers twice the capacity too, from two consumers of which one sends ten times as much.
func Unfair() Scenario {
	small := 2 * int(limited().Capacity()) / 11
	return Scenario{
		Behaviour: limited(), Targets: 1, Rates: []int{small, 10 * small}, Play: (*Stage).unfair,
		Figures: []Figure{SmallGood, SmallP99, LargeGood, Goodput, ServedP99, ServedTime, Refused, Told, RefusedP99, Late, Failed, Learning},
	}
}

func (s *Stage) unfair(ctx context.Context) (Figures, error) {
	p, err := s.play(ctx, learnFor+overloadFor)
	if err != nil {
		return nil, err
	}
	from, all := s.pace(learnFor), append(append(outcomes{}, p.clients[0]...), p.clients[1]...)
	f := overload(all, limited().Capacity(), limited().Service, patience, from, p.lasted)
	small, large := p.clients[0].due(from, p.lasted), p.clients[1].due(from, p.lasted)
	maps.Copy(f, Figures{
		SmallGood: success(small, patience), SmallP99: small.served().millis(0.99), LargeGood: success(large, patience),
	})
	return f, nil
}

// Replaced replaces three targets, one after the other, by new ones that discovery tells of. The old one is told to end in the same
// moment, as orchestrators do.
func Replaced() Scenario {
	return Scenario{
		Behaviour: quick(), Targets: 2 * replaced, Spare: replaced, Rates: []int{quickRate}, Play: (*Stage).replaced,
		Figures: []Figure{Failed, P50, P99, P999, Max},
	}
}

func (s *Stage) replaced(ctx context.Context) (Figures, error) {
	addresses := s.Targets.Addresses()
	stopped := make(chan error, replaced)
	var steps []step
	for i := range replaced {
		steps = append(steps, step{replaceFor / 8 * time.Duration(1+2*i), func() error {
			addresses[i] = s.Targets[replaced+i].Address
			told := s.Tell(addresses[:replaced])
			go func() { stopped <- s.Targets[i].Stop() }()
			return told
		}})
	}
	p, err := s.play(ctx, replaceFor, steps...)
	for range p.at {
		err = errors.Join(err, <-stopped)
	}
	if err != nil {
		return nil, err
	}
	o := p.clients[0]
	return Figures{
		Failed: o.failed(), P50: o.served().millis(0.5), P99: o.served().millis(0.99), P999: o.served().millis(0.999), Max: o.served().millis(1),
	}, nil
}

// Tailed has three targets of which every 50th request takes 100 times as long.
func Tailed() Scenario {
	return Scenario{
		Behaviour: fleet.Behaviour{Service: 5 * time.Millisecond, Workers: 32, Tail: 0.02, Factor: 100}, Targets: 3,
		Rates: []int{tailRate}, Play: (*Stage).tailed, Figures: []Figure{P50, P99, P999, Max, ExtraLoad, Failed},
	}
}

func (s *Stage) tailed(ctx context.Context) (Figures, error) {
	before, err := s.Targets.Asked(ctx)
	if err != nil {
		return nil, err
	}
	p, err := s.play(ctx, tailKnown+tailFor)
	if err != nil {
		return nil, err
	}
	after, err := s.Targets.Asked(ctx)
	if err != nil {
		return nil, err
	}
	asked := 0
	for i := range after {
		asked += after[i] - before[i]
	}
	all := p.clients[0]
	o := all.due(s.pace(tailKnown), p.lasted)
	return Figures{
		P50: o.served().millis(0.5), P99: o.served().millis(0.99), P999: o.served().millis(0.999), Max: o.served().millis(1),
		ExtraLoad: percent(float64(asked-len(all)), float64(len(all))), Failed: all.failed(),
	}, nil
}
