//! A grant: asks a person to agree at the provider's authorization server, and keeps what that gives.

use std::time::{Duration, SystemTime};

use super::browser;
use crate::auth::oauth::{
    Arrived, Consent, Line, LineStanding, OFFLINE, OauthClient, OauthSpec, Page, Redirect, Reply, Waiting, too_late,
};
use crate::auth::renewing::{Exchange, Granted, Keeper};
use crate::auth::{GivenSecrets, Scopes};
use crate::cli::arguments::LoginArguments;
use crate::cli::exit::Failure;
use crate::cli::{printable, secret_variables, secrets_of};
use crate::config::{Config, ResolvedRemote};
use crate::daemon::oauth_client;
use crate::model::Result;
use crate::paths::Paths;
use crate::provider::registry::Access;

/// How long a renewal by another process may hold a login up.
pub const TURN: Duration = Duration::from_secs(60);

/// A browser that waits for the last page.
struct Farewell {
    waiting: Waiting,
    arrived: Option<Arrived>,
}

/// What a login is for.
struct Login<'a> {
    remote: &'a ResolvedRemote,
    client: OauthClient,
    asked: Scopes,
    given: GivenSecrets,
}

/// Says what was kept, and where.
pub async fn get(
    arguments: &LoginArguments,
    config: &Config,
    remote: &ResolvedRemote,
    oauth: &OauthSpec,
    paths: &Paths,
) -> Result<String, Failure> {
    let login = Login {
        remote,
        client: oauth_client(remote, oauth)?,
        asked: wanted(remote, oauth),
        given: secrets_of(remote),
    };
    let mut farewell = None;
    let outcome = if arguments.device {
        login.by_device().await
    } else {
        let hidden = secret_variables(Some(config), Some(remote));
        login.by_browser(arguments, &hidden, &mut farewell).await
    };
    let kept = match outcome {
        Ok((granted, since)) => login.keep(oauth, paths, &granted, since).await.map(|()| granted),
        Err(error) => Err(error),
    };
    if let Some(Farewell { waiting, arrived }) = farewell {
        waiting.finish(arrived, login.page(&kept)).await;
    }
    let granted = kept.map_err(|error| Failure::from(error).about(format!("{}: nothing was stored", remote.name)))?;
    Ok(login.told(&granted, oauth))
}

/// What to ask for: what is configured, else what a mount of this remote needs.
fn wanted(remote: &ResolvedRemote, oauth: &OauthSpec) -> Scopes {
    let access = if remote.options.read_only == Some(true) {
        Access::Read
    } else {
        Access::Write
    };
    oauth
        .scopes
        .clone()
        .unwrap_or_else(|| remote.provider.scopes_for(access))
        .with(OFFLINE)
}

impl Login<'_> {
    async fn by_browser(
        &self,
        arguments: &LoginArguments,
        hidden: &[String],
        farewell: &mut Option<Farewell>,
    ) -> Result<(Granted, SystemTime)> {
        let redirect = Redirect::bind().await?;
        let back = redirect.url()?;
        let consent = self.client.consent(back.clone(), &self.asked, &self.given).await?;
        let mut waiting = redirect.wait_for(consent.url(), consent.expected())?;
        let door = waiting.door()?;
        let opened = !arguments.no_browser && browser::open(door.as_str(), hidden);
        if opened {
            eprintln!("Your browser shows a page to agree to. If it doesn't, open this address in it:\n\n  {door}\n");
        } else {
            eprintln!(
                "Open this address in a browser, here or elsewhere:\n\n  {}\n\n\
                 Elsewhere the browser ends at an address that it cannot show. It begins with {back}:\n\
                 copy it from the address bar, paste it here, and press Enter.",
                consent.url()
            );
        }
        let answered = answer(&mut waiting, &consent, !opened);
        let answer = match tokio::time::timeout(arguments.wait, answered).await {
            Ok(Ok(Answer::Arrived(arrived))) => {
                let answer = arrived.answer.clone();
                *farewell = Some(Farewell {
                    waiting,
                    arrived: Some(arrived),
                });
                answer
            }
            Ok(Ok(Answer::Pasted(answer))) => answer,
            Ok(Err(error)) => Err(error),
            Err(_) => Err(too_late(arguments.wait)),
        };
        let code = answer?;
        let since = SystemTime::now();
        Ok((consent.redeem(&code).await?, since))
    }

    async fn by_device(&self) -> Result<(Granted, SystemTime)> {
        let device = self.client.device_consent(&self.asked, &self.given).await?;
        let minutes = device.life().as_secs().div_ceil(60);
        eprintln!(
            "On any device, open this address:\n\n  {}\n\nand type this code, which is good for {minutes} min:\n\n  {}\n",
            printable(device.address()),
            printable(device.user_code()),
        );
        if let Some(whole) = device.whole_address() {
            eprintln!("This address has the code in it:\n\n  {}\n", printable(whole));
        }
        device.granted().await
    }

    async fn keep(&self, oauth: &OauthSpec, paths: &Paths, granted: &Granted, since: SystemTime) -> Result<()> {
        let keeper = keeper(oauth, paths);
        let basis = self.client.basis(&self.given).await?;
        keeper.install(granted, &basis, since, &self.given, TURN).await
    }

    /// What was asked for and not given. That a token renews is seen by what renews it, not by a scope's name.
    fn missing(&self, granted: &Granted) -> Scopes {
        let Some(scopes) = &granted.scopes else {
            return Scopes::default();
        };
        let missing = self.asked.beyond(scopes);
        let is_missing = |scope: &str| scope != OFFLINE || granted.refresh.is_none();
        missing
            .iter()
            .filter(|scope| is_missing(scope))
            .map(str::to_owned)
            .collect()
    }

    fn told(&self, granted: &Granted, oauth: &OauthSpec) -> String {
        let missing = self.missing(granted);
        let mut sentence = format!("access is granted, and kept in {}", oauth.kept.place());
        if !missing.is_empty() {
            sentence.push_str(&format!("; not granted: {missing}"));
        }
        if granted.refresh.is_none() {
            sentence.push_str(
                "; the authorization server gave nothing to renew it with, so it ends and needs another login then",
            );
        }
        sentence
    }

    fn page(&self, outcome: &Result<Granted>) -> Page {
        let (provider, name) = (self.remote.provider.title(), &self.remote.name);
        match outcome {
            Err(error) => Page::failed(provider, name, error.message()),
            Ok(granted) => {
                let missing = self.missing(granted);
                // What is granted to last comes last.
                let mut asked: Vec<&str> = self.asked.iter().collect();
                asked.sort_by_key(|scope| *scope == OFFLINE);
                let lines = asked.into_iter().map(|scope| Line {
                    scope: scope.to_owned(),
                    meaning: self.remote.provider.scope_meaning(scope),
                    standing: if missing.contains(scope) {
                        LineStanding::Missing
                    } else {
                        LineStanding::Granted
                    },
                });
                Page::connected(provider, name, lines.collect())
            }
        }
    }
}

/// What comes first: the browser, or what the person pastes.
async fn answer(waiting: &mut Waiting, consent: &Consent, may_paste: bool) -> Result<Answer> {
    let mut lines = may_paste.then(browser::pasted_lines);
    loop {
        let line = async {
            match &mut lines {
                Some(lines) => lines.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            arrived = waiting.arrived() => return Ok(Answer::Arrived(arrived?)),
            line = line => match line {
                None => lines = None,
                Some(line) => match consent.expected().read_pasted(&line) {
                    Reply::Code(code) => return Ok(Answer::Pasted(Ok(code))),
                    Reply::Refused(error) => return Ok(Answer::Pasted(Err(error))),
                    Reply::Foreign if line.trim().is_empty() => {}
                    Reply::Foreign => eprintln!(
                        "That is not the answer to this login. Paste the whole address that the browser ended at."
                    ),
                },
            },
        }
    }
}

/// How an answer came.
enum Answer {
    Arrived(Arrived),
    Pasted(Result<secrecy::SecretString>),
}

/// Where the grant of a remote is kept for all processes.
pub fn keeper(oauth: &OauthSpec, paths: &Paths) -> Keeper {
    Keeper::new(oauth.kept.clone(), paths.renewal_lock(&oauth.kept.remote))
}
