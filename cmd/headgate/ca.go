package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"headgate/internal/clock"
)

// caCommand shows the root of this node's own authority.
func caCommand() *cobra.Command {
	var path bool
	c := &cobra.Command{
		Use:   "ca",
		Short: "Print the root of the internal authority",
		Long: "Prints, in PEM, the certificate of this machine's own authority, which issues for the names in a listener's tls.internal.\n" +
			"It is made when it is not there, and kept under " + stateVariable + " or, without that, in the user's configuration folder.\n\n" +
			"Whoever trusts it believes certificates for localhost, private addresses and names below .test, .internal and the like;\n" +
			"it cannot speak for any other. To trust it for one call:\n\n" +
			"  curl --cacert \"$(headgate ca --path)\" https://localhost:8443/\n\n" +
			"On Debian: headgate ca | sudo tee /usr/local/share/ca-certificates/headgate.crt && sudo update-ca-certificates\n" +
			"On macOS:  sudo security add-trusted-cert -d -k /Library/Keychains/System.keychain \"$(headgate ca --path)\"\n" +
			"Browsers:  import it as an authority in the settings of certificates.",
		Example: "  headgate ca > root.pem\n  curl --cacert \"$(headgate ca --path)\" https://localhost:8443/",
		Args:    takes(0),
		RunE: func(c *cobra.Command, _ []string) error {
			a, err := openAuthority(clock.System{})
			if err != nil {
				return fail(err)
			}
			if path {
				_, err = fmt.Fprintln(c.OutOrStdout(), a.RootFile())
				return fail(err)
			}
			_, err = c.OutOrStdout().Write(a.Root())
			return fail(err)
		},
	}
	c.Flags().BoolVar(&path, "path", false, "print the path of its file instead")
	return c
}
