//! What the browser shows at the end: one self-contained page, without a script, in light and dark.

use std::fmt::Write;

/// A page of the address that the browser came back to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    mark: Mark,
    title: String,
    text: String,
    grants: Vec<Line>,
    command: Option<String>,
    end: &'static str,
}

/// Something that was granted, or wasn't.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The server's own word for it.
    pub scope: String,
    pub meaning: Option<&'static str>,
    pub standing: LineStanding,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineStanding {
    Granted,
    Missing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Done,
    Partly,
    Failed,
}

const CLOSE: &str = "You can close this window.";

impl Page {
    /// The remote can be used now, as far as the lines say.
    pub fn connected(provider: &str, remote: &str, grants: Vec<Line>) -> Self {
        let whole = grants.iter().all(|line| line.standing == LineStanding::Granted);
        Self {
            mark: if whole { Mark::Done } else { Mark::Partly },
            title: if whole {
                format!("{provider} is connected")
            } else {
                format!("{provider} is connected in part")
            },
            text: format!("For the remote “{remote}”, keymount may:"),
            grants,
            command: None,
            end: "You can close this window and go on in the terminal.",
        }
    }

    /// It didn't work: what happened, and the command that tries again.
    pub fn failed(provider: &str, remote: &str, why: &str) -> Self {
        Self {
            mark: Mark::Failed,
            title: format!("{provider} is not connected"),
            text: format!("{}.", capital(why.trim_end_matches('.'))),
            grants: Vec::new(),
            command: Some(format!("keymount login {remote}")),
            end: CLOSE,
        }
    }

    /// Whoever comes here didn't come from the question that is waiting.
    pub(super) fn foreign() -> Self {
        Self {
            mark: Mark::Failed,
            title: "This is not the login that keymount waits for".to_owned(),
            text:
                "It may be from an earlier login. Nothing was changed, and keymount still waits for the address that \
                   the terminal shows."
                    .to_owned(),
            grants: Vec::new(),
            command: None,
            end: CLOSE,
        }
    }

    /// For other users of this machine, and for whoever cannot be told from them.
    pub(super) fn stranger() -> Self {
        Self {
            mark: Mark::Failed,
            title: "This login is somebody else’s".to_owned(),
            text: "This browser does not run as the user of this machine who logs in. Nothing was changed. If it is your login, \
                   run the command again with --no-browser and paste the address that the browser ends at."
                .to_owned(),
            grants: Vec::new(),
            command: None,
            end: CLOSE,
        }
    }

    /// What a browser hardly shows on its way to the question.
    pub(super) fn asking() -> Self {
        Self {
            mark: Mark::Partly,
            title: "You decide on the provider’s page".to_owned(),
            text: "The browser is on its way there.".to_owned(),
            grants: Vec::new(),
            command: None,
            end: CLOSE,
        }
    }

    pub(super) fn answered() -> Self {
        Self {
            mark: Mark::Partly,
            title: "This login was answered already".to_owned(),
            text: "Look at the terminal for how it ended.".to_owned(),
            grants: Vec::new(),
            command: None,
            end: CLOSE,
        }
    }

    pub(super) fn gone() -> Self {
        Self {
            mark: Mark::Failed,
            title: "keymount no longer waits for this login".to_owned(),
            text: "The command in the terminal was ended, or waited too long. Run it again.".to_owned(),
            grants: Vec::new(),
            command: None,
            end: CLOSE,
        }
    }

    pub(super) fn html(&self) -> String {
        let (class, icon) = match self.mark {
            Mark::Done => ("done", "M7 12.5l3.2 3.2L17 9"),
            Mark::Partly => ("partly", "M12 7v6M12 16.5v.01"),
            Mark::Failed => ("failed", "M8.5 8.5l7 7M15.5 8.5l-7 7"),
        };
        let mut main = String::new();
        if !self.grants.is_empty() {
            main.push_str("<ul>");
            for line in &self.grants {
                let (class, sign, hidden) = match line.standing {
                    LineStanding::Granted => ("yes", "✓", "granted"),
                    LineStanding::Missing => ("no", "–", "not granted"),
                };
                let scope = escaped(&line.scope);
                let words = match line.meaning {
                    Some(meaning) => format!("<span>{}</span><code>{scope}</code>", escaped(meaning)),
                    None => format!("<span><code>{scope}</code></span>"),
                };
                // Writing to a string cannot fail.
                let _ = write!(
                    main,
                    "<li class=\"{class}\"><b aria-label=\"{hidden}\">{sign}</b>{words}</li>"
                );
            }
            main.push_str("</ul>");
        }
        if let Some(command) = &self.command {
            let _ = write!(
                main,
                "<p class=\"again\">To try again, run in the terminal:</p><pre>{}</pre>",
                escaped(command)
            );
        }
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <meta name=\"color-scheme\" content=\"light dark\"><title>{title} – keymount</title>\
             <link rel=\"icon\" href=\"data:,\"><style>{STYLE}</style></head>\
             <body><main class=\"{class}\">\
             <svg viewBox=\"0 0 24 24\" aria-hidden=\"true\"><circle cx=\"12\" cy=\"12\" r=\"11\"/><path d=\"{icon}\"/></svg>\
             <h1>{title}</h1><p>{text}</p>{main}<p class=\"end\">{end}</p></main>\
             <footer>keymount</footer></body></html>\n",
            title = escaped(&self.title),
            text = escaped(&self.text),
            end = self.end,
        )
    }
}

const STYLE: &str = "
:root { color-scheme: light dark; --ground: #f4f5f7; --card: #fff; --ink: #1c2330; --soft: #5b6577; --line: #e3e6ec;
  --done: #1a7f4b; --partly: #a15c00; --failed: #c0352b; --shadow: 0 1px 2px #1c233014, 0 12px 32px #1c23301a; }
@media (prefers-color-scheme: dark) { :root { --ground: #12151b; --card: #1b2029; --ink: #e9ecf2; --soft: #9aa5b8;
  --line: #2c3340; --done: #4cc38a; --partly: #f0b45a; --failed: #ff8379; --shadow: none; } }
* { box-sizing: border-box; margin: 0; }
body { min-height: 100vh; display: flex; flex-direction: column; align-items: center; justify-content: center;
  gap: 1.25rem; padding: 1.5rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, \"Segoe UI\", Roboto, \"Noto Sans\", sans-serif; }
main { width: 100%; max-width: 32rem; padding: 2.25rem 2.25rem 1.75rem; background: var(--card);
  border: 1px solid var(--line); border-radius: 1rem; box-shadow: var(--shadow); }
.done { --tone: var(--done); } .partly { --tone: var(--partly); } .failed { --tone: var(--failed); }
svg { display: block; width: 3rem; height: 3rem; margin-bottom: 1.1rem; fill: none; stroke: var(--tone);
  stroke-width: 1.8; stroke-linecap: round; stroke-linejoin: round; }
circle { fill: var(--tone); fill-opacity: .12; stroke: none; }
h1 { font-size: 1.4rem; line-height: 1.25; font-weight: 650; letter-spacing: -.01em; margin-bottom: .4rem; }
p { color: var(--soft); overflow-wrap: anywhere; }
ul { list-style: none; padding: 0; margin: 1rem 0 0; border-top: 1px solid var(--line); }
li { display: flex; gap: .7rem; align-items: baseline; padding: .55rem 0; border-bottom: 1px solid var(--line); }
li span { flex: 1; } li b { width: 1rem; text-align: center; color: var(--done); } li.no b { color: var(--partly); }
li.no span { color: var(--soft); text-decoration: line-through; }
code, pre { font: .82rem/1.5 ui-monospace, \"SF Mono\", Menlo, \"DejaVu Sans Mono\", monospace; }
li code { color: var(--soft); }
.again { margin-top: 1.1rem; }
pre { margin-top: .5rem; padding: .7rem .9rem; border-radius: .55rem; background: var(--ground);
  border: 1px solid var(--line); overflow-x: auto; }
.end { margin-top: 1.35rem; color: var(--ink); }
footer { color: var(--soft); font-size: .82rem; letter-spacing: .02em; }
";

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c if c.is_control() => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_named_cannot_act_on_the_page() {
        let line = Line {
            scope: "<script>x</script>".into(),
            meaning: None,
            standing: LineStanding::Granted,
        };
        let html = Page::connected("CloudSync", "a\"b&<i>", vec![line]).html();
        assert!(!html.contains("<script") && !html.contains("<i>"), "{html}");
        assert!(html.contains("&lt;script&gt;") && html.contains("a&quot;b&amp;&lt;i&gt;"));
        let html = Page::failed("CloudSync", "drive", "the server said <b>no</b>").html();
        assert!(html.contains("The server said &lt;b&gt;no&lt;/b&gt;."), "{html}");
    }

    #[test]
    fn the_page_loads_nothing_and_says_what_to_do() {
        let html = Page::failed("CloudSync", "drive", "nobody agreed").html();
        assert!(html.contains("keymount login drive") && html.contains("close this window"));
        for outside in ["http://", "https://", "<script", "src=", "@import", "url("] {
            assert!(!html.contains(outside), "{outside}");
        }
    }

    #[test]
    fn what_is_missing_is_marked() {
        let line = |scope: &str, standing| Line {
            scope: scope.into(),
            meaning: Some("Read file contents"),
            standing,
        };
        let whole = Page::connected("X", "r", vec![line("a", LineStanding::Granted)]);
        let part = Page::connected("X", "r", vec![line("a", LineStanding::Missing)]);
        assert!(whole.html().contains("<main class=\"done\">"));
        assert!(part.html().contains("<main class=\"partly\">") && part.html().contains("not granted"));
    }
}
