// Package adapt finds out how many requests an upstream can work on at one time, and lets the others wait in a short, fair
// queue or be refused. Nothing needs tuning. It starts no goroutine; the clock is handed in.
//
// Free. As long as there are no signs of overload nothing is limited (free.go): an upstream that is merely slow, asked by many at
// one time, new, or become ten times slower, is none of a limiter's business. Every epoch the requests under way, their latency
// and their throughput are compared. When answers take longer and nothing else is wrong, the requests under way grow by as much
// and then stay (Little's law); when there are ever more of them, or as many clients as there are wait for each other, the
// upstream may get more than it can do. That is put to a test before anything else follows: for about two latencies half as many
// are let through, and the others wait; none is refused. If those are quicker than the youngest of all would have been and as many
// are answered as before, requests have waited for each other, and there is a limit. If fewer are answered, or they are as slow as
// before, the upstream is merely slow. Where a test would take more than ten seconds, ever more requests under way are enough.
//
// What fails begins no limit: an upstream that refuses what is too much for it is not overloaded, one that hangs or cannot be
// reached does not get better by being asked less, and requests that hang would hold the places of those that come when it is
// back. Only when answers are late as well do timeouts show a heap of requests for which nobody waits any longer. A limit under
// which nearly everything times out is dropped for the same reason.
//
// The limit. While it is in force, every release adds its latency to the figures of an epoch; at its end (estimate.go) the
// latency is compared with the baseline, what the upstream needs when our requests do not wait for each other:
//
//   - up to growBelow times the baseline, and the limit was reached: the limit grows by a quarter;
//   - up to shrinkAbove times: it stays; as growth is a quarter at most, it comes to rest in this band and does not swing;
//   - above: it shrinks to where the latency would be in the band if all excess were queueing;
//   - many requests were refused, or timed out: it shrinks, whatever the latency, unless that makes no difference.
//
// The baseline follows the latency down at once. It follows it up only on evidence: while the limit is not reached (there is
// no queue of our making), or when the limit was halved and the latency did not fall with it. Queueing halves; slowness does
// not. So there is no window in which traffic is held back to measure. Only what is known about a quick upstream from before it
// had too much to do is doubted: when limiting begins, the limit is halved as long as that makes it quicker, and the upstream
// is busy all the time, up to the last of these steps. A limit that is not reached for a while is dropped.
//
// What others' failure reports teach, and what is done about it here:
//
//   - envoyproxy/envoy #46532: the concurrency pinned while measuring the minimal latency was the lower bound of the limit
//     too, so that gentler measuring meant a worse last line of defence. Here nothing is pinned to measure; the floor is the
//     floor and nothing else.
//   - envoyproxy/envoy #18152: requests were refused although gradient and limit were fine and the average concurrency was a
//     tenth of the limit. A limit alone turns every burst into errors. Here a burst waits in the queue, whose patience is of
//     the order of the service's own latency; only a queue that stands is cut.
//   - envoyproxy/envoy #14997: two threads ended the measuring window together, the second found no samples, and the minimal
//     latency became 0, which refuses everything. Here one epoch is ended by one goroutine under a lock, an epoch without
//     enough samples changes nothing, and a sample is at least a microsecond. Latencies of requests that began under another
//     limit do not count (their #11579): after a change four mean latencies pass first.
//   - Netflix/concurrency-limits #134 (and #137): an allowance for queueing that is added at every step makes the limit grow
//     without end under modest overload; and a latency that is constant because everything times out looks like health. Here
//     nothing is added while the latency is above growBelow, and timeouts are no latencies: they shrink the limit.
//   - failsafe-go #127: in a long incident the baseline, a moving average, drifted to the incident's latency, so the limit
//     opened while the service was still ill. Here a higher latency becomes the baseline only if it does not depend on how
//     many requests we send; failures never raise it; and the first epoch of good latencies brings it down.
//
// Refusals and timeouts that stay the same share when half is asked do not depend on the load (one caller's quota, a path that
// hangs); they are tolerated, and the limit goes back.
//
// What it is weak at: a service of which fewer than about twenty answers come in a second is judged rarely and by little. It is
// limited late, and its first latencies are among those that the gateway takes for usual.
//
// What it cannot know: when requests become more and slower together, for different reasons, that looks like overload. Then the
// limit makes no difference to the latency, which is learned, and it goes.
//
// The queue (queue.go) stands in front of the limit, in levels of priority; within a level, consumers take turns by weight
// (deficit round robin, Shreedhar and Varghese 1995) in a bounded number of flows. Each flow has its own patience (patience.go) in
// the way of CoDel (RFC 8289, and its use for requests in "Fail at Scale", ACM Queue 2015): a request may wait long if its flow's
// queue was empty lately, and only shortly in a queue that stands. But that begins with two seconds and becomes short only while
// many are refused all the same: clients that wait for their answers fill a queue to some length and no further, and should be
// served, late or not; those that do not wait fill any queue, and then a short one serves them better. When the whole queue is
// full, the longest flow of the lowest priority loses, so that nobody can crowd out others.
package adapt
