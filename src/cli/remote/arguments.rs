//! What can be typed after `keymount remote`.

use clap::{ArgGroup, Args, Subcommand};

#[derive(Debug, Args)]
pub struct RemoteArguments {
    #[command(subcommand)]
    pub command: RemoteCommand,
}

#[derive(Debug, Subcommand)]
pub enum RemoteCommand {
    /// Configure another remote: asks what is needed, tries it, and writes it into the configuration
    ///
    /// On a terminal it asks; with --provider it asks only for what is missing. A secret is typed without being shown, or
    /// piped in, and keymount keeps it; or an option says where it is read each time. It is never an argument.
    Add(AddArguments),
    /// List the configured remotes
    List,
    /// Show how a remote is configured, without its secrets
    Show {
        /// A configured remote
        #[arg(value_name = "REMOTE", add = super::super::completions::remotes())]
        remote: String,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Take a remote out of the configuration, and forget the secrets that keymount keeps for it
    ///
    /// It must not be mounted. Access that was granted in the browser is revoked where the provider allows that.
    Remove {
        /// A configured remote
        #[arg(value_name = "REMOTE", add = super::super::completions::remotes())]
        remote: String,
        /// Don't ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Ask a remote whether the credential is good and what it may do
    Test {
        /// A configured remote, or an address
        #[arg(value_name = "REMOTE[:PATH]|URL", add = super::super::completions::remotes())]
        source: String,
    },
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("place").multiple(true))]
pub struct AddArguments {
    /// What it shall be called [default: the provider's name]
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// cludz, cloudsync, storra, dstor, reductstore, s3 or webdav
    #[arg(long, value_name = "PROVIDER")]
    pub provider: Option<String>,
    /// How you prove who you are, such as token, api-key, oauth, basic or none [default: the provider's first]
    #[arg(long, value_name = "METHOD")]
    pub auth_method: Option<String>,
    /// A key of the configuration and its value: storage=UUID, auth.username=me, options.umask=077; may be given often
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// The secret is in this environment variable; KEY= names which one, where a method has several
    #[arg(long, value_name = "[KEY=]NAME", group = "place")]
    pub secret_env: Vec<String>,
    /// The secret is in this file, which only you may read
    #[arg(long, value_name = "[KEY=]FILE", group = "place")]
    pub secret_file: Vec<String>,
    /// This command prints the secret: 'pass show drive'
    #[arg(long, value_name = "[KEY=]COMMAND", group = "place")]
    pub secret_command: Vec<String>,
    /// The secret is this credential of systemd (LoadCredential=)
    #[arg(long, value_name = "[KEY=]NAME", group = "place")]
    pub secret_systemd: Vec<String>,
    /// Keep what is typed or piped in in the OS keyring, and not in a file of keymount's own
    #[arg(long)]
    pub keyring: bool,
    /// Write it without asking the provider whether it works
    #[arg(long)]
    pub no_check: bool,
}
