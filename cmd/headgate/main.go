// Command headgate is the gateway and its tools. main.go lists the verbs; each has a file of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"headgate/config/decode"
)

// version is set when a release is linked.
var version = "dev"

// Exit codes.
const (
	exitFailed = 1 // something did not work
	exitUsage  = 2 // the command line or the document is wrong
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)   // the second signal does what it does to every program: it ends it at once
	signal.Ignore(syscall.SIGPIPE) // a log whose reader has gone must not end the gateway
	err := rootCommand().ExecuteContext(ctx)
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, err)
	stop()
	os.Exit(exitCode(err))
}

// exitCode tells a command line or document that is wrong from something that did not work.
func exitCode(err error) int {
	var failed *failure
	if errors.As(err, &failed) {
		return exitFailed
	}
	return exitUsage // cobra's own errors, and problems of documents
}

// failure is an error that is not about how the command was called.
type failure struct{ error }

// Unwrap returns the cause.
func (f *failure) Unwrap() error { return f.error }

// fail marks an error as a failure, unless it says what is wrong with a document.
func fail(err error) error {
	var problems decode.Problems
	if err == nil || errors.As(err, &problems) {
		return err
	}
	return &failure{err}
}

// takes asks for n arguments, and says how the command is called when there are others.
func takes(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		what := "no arguments"
		if n > 0 {
			what = count(n, "argument")
		}
		return fmt.Errorf("%s takes %s, not %d; write %s", c.CommandPath(), what, len(args), c.UseLine())
	}
}

func rootCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "headgate",
		Short: "An API gateway in one binary",
		Long: "Headgate stands between the callers of your APIs and the services behind them.\n\n" +
			"Exit codes: 0 all went well, 1 something failed, 2 the command line or the document is wrong.",
		Example: "  headgate run examples/shop.yaml\n" +
			"  headgate check gateway.yaml\n" +
			"  headgate explain route GET http://localhost:8080/shop/orders --file gateway.yaml\n" +
			"  source <(headgate completion bash)",
		SilenceUsage: true, SilenceErrors: true,
	}
	c.AddCommand(runCommand(), checkCommand(), schemaCommand(), explainCommand(), policiesCommand(), versionCommand(), demoCommand(),
		caCommand(), referenceCommand())
	return c
}
