//! Gauges and counters in Prometheus' text form (exposition format 0.0.4). Labels name mounts, never secrets.

use std::fmt::Write;

use super::{DaemonReport, MountReport, MountState};

/// The states of a credential; the one it is in has the value 1.
const CREDENTIAL_STATES: [&str; 6] = ["valid", "renewing", "expired", "anonymous", "rejected", "needs-login"];

/// One gauge: its name, what it says, and its value for a mount.
type Gauge = (&'static str, &'static str, fn(&MountReport) -> u64);

const GAUGES: [Gauge; 5] = [
    (
        "keymount_mounted",
        "Whether the directory is mounted (1) or only finishing its uploads (0).",
        |mount| u64::from(mount.state == MountState::Mounted),
    ),
    ("keymount_pending_files", "Files not yet at the provider.", |mount| {
        mount.pending.len() as u64
    }),
    (
        "keymount_pending_bytes",
        "Bytes not yet at the provider.",
        MountReport::pending_bytes,
    ),
    (
        "keymount_cache_memory_bytes",
        "Bytes of content held in memory.",
        |mount| mount.cache.memory,
    ),
    ("keymount_cache_disk_bytes", "Bytes of content held on disk.", |mount| {
        mount.cache.disk
    }),
];

/// What only grows: its name, what it says, and its value for a mount.
const COUNTERS: [Gauge; 4] = [
    (
        "keymount_credential_exchanges_total",
        "Tokens got from the service since the daemon started.",
        |mount| mount.credential.renewals.exchanges,
    ),
    (
        "keymount_credential_adoptions_total",
        "Tokens taken over from another process.",
        |mount| mount.credential.renewals.adoptions,
    ),
    (
        "keymount_credential_failures_total",
        "Requests for a token that failed.",
        |mount| mount.credential.renewals.failures,
    ),
    (
        "keymount_credential_waits_total",
        "Operations that waited because no token could be used.",
        |mount| mount.credential.renewals.waits,
    ),
];

/// All gauges and counters of all mounts.
pub fn render(report: &DaemonReport) -> String {
    let mut text = String::new();
    let measures = [("gauge", &GAUGES[..]), ("counter", &COUNTERS[..])];
    for (kind, (name, help, value)) in measures
        .into_iter()
        .flat_map(|(kind, all)| all.iter().map(move |measure| (kind, measure)))
    {
        head(&mut text, name, help, kind);
        for mount in &report.mounts {
            let _ = writeln!(text, "{name}{{{}}} {}", labels(mount), value(mount));
        }
    }
    let name = "keymount_credential_until_seconds";
    head(
        &mut text,
        name,
        "When the credential ends, in seconds since 1970; missing when it doesn't say.",
        "gauge",
    );
    for mount in &report.mounts {
        if let Some(until) = mount.credential.until {
            let _ = writeln!(text, "{name}{{{}}} {until}", labels(mount));
        }
    }
    let name = "keymount_credential_state";
    head(&mut text, name, "1 for the state that the credential is in.", "gauge");
    for mount in &report.mounts {
        for state in CREDENTIAL_STATES {
            let value = u8::from(mount.credential.state == state);
            let _ = writeln!(text, "{name}{{{},state=\"{state}\"}} {value}", labels(mount));
        }
    }
    text
}

fn head(text: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn labels(mount: &MountReport) -> String {
    format!(
        "remote=\"{}\",provider=\"{}\",directory=\"{}\"",
        escape(&mount.remote),
        escape(&mount.provider),
        escape(&mount.directory.to_string_lossy())
    )
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{CacheReport, CredentialReport, PendingReport, RenewalReport};

    #[test]
    fn every_gauge_has_a_line_for_each_mount() {
        let mount = MountReport {
            id: 0,
            remote: "drive".into(),
            provider: "cludz".into(),
            endpoint: "https://x/".into(),
            directory: "/mnt/a \"b\"".into(),
            state: MountState::Mounted,
            read_only: false,
            rights: "rwd".into(),
            credential: CredentialReport {
                method: "token".into(),
                state: "rejected".into(),
                until: Some(1_700_000_000),
                variables: Vec::new(),
                environment: None,
                scopes: None,
                renewals: RenewalReport {
                    exchanges: 3,
                    adoptions: 4,
                    failures: 5,
                    waits: 6,
                },
                key: None,
                since: None,
                source: Some("env".into()),
            },
            cache: CacheReport {
                memory: 1,
                memory_limit: 80 << 20,
                in_flight_limit: 48 << 20,
                disk: 2,
                disk_limit: None,
                folder: None,
            },
            pending: vec![PendingReport {
                path: "/a".into(),
                bytes: 7,
                error: None,
            }],
            last_errors: Vec::new(),
        };
        let report = DaemonReport {
            pid: 1,
            version: "0".into(),
            started: 0,
            log_file: None,
            mounts: vec![mount],
        };
        let text = render(&report);
        let labels = r#"remote="drive",provider="cludz",directory="/mnt/a \"b\"""#;
        for line in [
            format!("keymount_mounted{{{labels}}} 1"),
            format!("keymount_pending_files{{{labels}}} 1"),
            format!("keymount_pending_bytes{{{labels}}} 7"),
            format!("keymount_cache_disk_bytes{{{labels}}} 2"),
            format!("keymount_credential_state{{{labels},state=\"rejected\"}} 1"),
            format!("keymount_credential_state{{{labels},state=\"valid\"}} 0"),
            format!("keymount_credential_until_seconds{{{labels}}} 1700000000"),
            format!("keymount_credential_exchanges_total{{{labels}}} 3"),
            format!("keymount_credential_adoptions_total{{{labels}}} 4"),
            format!("keymount_credential_failures_total{{{labels}}} 5"),
            format!("keymount_credential_waits_total{{{labels}}} 6"),
            "# TYPE keymount_credential_waits_total counter".to_owned(),
            "# TYPE keymount_pending_files gauge".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}
