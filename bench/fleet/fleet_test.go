package fleet

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"headgate/bench/payload"
	"headgate/bench/proc"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if arguments, ok := Arguments(); ok { // this program is the target too
		if err := Serve(arguments, os.Stdout); err != nil {
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func start(t *testing.T, b Behaviour) *Target {
	t.Helper()
	cores, err := proc.Cores()
	if err != nil {
		t.Fatal(err)
	}
	target, err := Start(cores[0], b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := target.Kill(); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return target
}

// get asks a target once on a connection of its own, and returns how long that took.
func get(t *Target, path string) (time.Duration, error) {
	r, err := http.NewRequest(http.MethodGet, "http://"+t.Address+path, nil)
	if err != nil {
		return 0, err
	}
	r.Close = true
	began := time.Now()
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	body, err := io.ReadAll(answer.Body)
	if err == nil && path != "/healthz" && string(body) != string(payload.Small()) {
		err = errors.New("it answers " + answer.Status + " " + string(body))
	}
	return time.Since(began), errors.Join(err, answer.Body.Close())
}

func TestATargetAnswersNoMoreThanItsCapacityAndCountsWhatItWasAsked(t *testing.T) {
	target := start(t, Behaviour{Service: 20 * time.Millisecond, Workers: 4})
	const requests = 40 // ten for each worker: 200 ms
	var wait sync.WaitGroup
	began := time.Now()
	for range requests {
		wait.Go(func() {
			if _, err := get(target, "/x"); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if took := time.Since(began); took < 200*time.Millisecond {
		t.Errorf("%d requests took %v; with 4 workers and 20 ms for each they cannot take less than 200 ms", requests, took)
	}
	if _, err := get(target, "/healthz"); err != nil {
		t.Error(err)
	}
	if n, err := target.Asked(t.Context()); err != nil || n != requests {
		t.Errorf("asked %d times, %v; want %d, without the probe", n, err, requests)
	}
}

func TestATargetBecomesSlower(t *testing.T) {
	target := start(t, Behaviour{Service: time.Millisecond, Workers: 1})
	if err := target.Slow(t.Context(), 60*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if took, err := get(target, "/x"); err != nil || took < 60*time.Millisecond {
		t.Errorf("%v, %v", took, err)
	}
	if err := target.Slow(t.Context(), -1); err == nil {
		t.Error("a service time below 0 was taken")
	}
}

func TestSomeRequestsTakeLonger(t *testing.T) {
	s := &server{behaviour: Behaviour{Tail: 0.02, Factor: 100}, random: 7}
	s.service.Store(int64(time.Millisecond))
	slow := 0
	for n := range uint64(10_000) {
		switch d := s.length(n); d {
		case time.Millisecond:
		case 100 * time.Millisecond:
			slow++
		default:
			t.Fatal(d)
		}
	}
	if slow < 150 || slow > 250 {
		t.Errorf("%d of 10,000 were slow, about 200 are wanted", slow)
	}
}

func TestATargetThatWasKilledComesBackWhereItWasAndItsCountGoesOn(t *testing.T) {
	target := start(t, Behaviour{Service: time.Millisecond, Workers: 1})
	where := target.Address
	if _, err := get(target, "/x"); err != nil {
		t.Fatal(err)
	}
	if err := target.KillRemembering(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := get(target, "/x"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("nobody is there, but: %v", err)
	}
	if err := target.Back(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := get(target, "/x"); err != nil || target.Address != where {
		t.Errorf("%s instead of %s, %v", target.Address, where, err)
	}
	if n, err := target.Asked(t.Context()); err != nil || n != 2 {
		t.Errorf("asked %d times, %v", n, err)
	}
}

func TestATargetThatIsToldToEndFinishesWhatItHasBegun(t *testing.T) {
	target := start(t, Behaviour{Service: 300 * time.Millisecond, Workers: 1})
	answered := make(chan error, 1)
	go func() {
		_, err := get(target, "/x")
		answered <- err
	}()
	for {
		n, err := target.Asked(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n == 1 {
			break
		}
	}
	if err := target.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

func TestABehaviourThatMakesNoSenseIsRefused(t *testing.T) {
	for _, args := range []string{"-workers 0", "-workers 20000", "-service 0s", "-factor 0", "-x"} {
		var out strings.Builder
		if err := Serve(strings.Fields(args), &out); err == nil || out.Len() > 0 {
			t.Errorf("%s: %v, %q", args, err, out.String())
		}
	}
}
