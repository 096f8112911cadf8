package crowd

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMembersAreThereUntilTheyReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o Of[string]
		leave := map[string]chan struct{}{"a": make(chan struct{}), "b": make(chan struct{})}
		for name, c := range leave {
			o.Go(name, func() { <-c })
		}
		if got := slices.Sorted(o.All()); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("%v", got)
		}
		close(leave["a"])
		synctest.Wait()
		if got := slices.Sorted(o.All()); !slices.Equal(got, []string{"b"}) {
			t.Errorf("%v", got)
		}
		close(leave["b"])
		if n := o.Wait(context.Background(), func(string) { t.Error("cut off") }); n != 0 {
			t.Errorf("%d were cut off", n)
		}
	})
}

func TestWaitCutsOffThoseWhoStayTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o Of[chan struct{}]
		for range 3 {
			c := make(chan struct{})
			o.Go(c, func() { <-c })
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if n := o.Wait(ctx, func(c chan struct{}) { close(c) }); n != 3 {
			t.Errorf("%d were cut off", n)
		}
		for range o.All() {
			t.Error("somebody is still there")
		}
	})
}
