//! Completion in a shell. kubectl asks a program `kubectl_complete-flinkha` on the `PATH` for the words that may stand
//! at a place, by the words before it, the last of which has been begun. The answer is one line for each, and a last
//! line with cobra's directive (`ShellCompDirectiveNoFileComp` of `github.com/spf13/cobra`, 4).

use std::time::Duration;

use clap::{Arg, Command, CommandFactory as _};
use kube::api::ListParams;
use tokio::time::timeout;

use super::access::{AccessArguments, PluginAccess};
use super::arguments::PluginArguments;
use super::parsers::namespace;
use super::view::text::plain;
use crate::api::FlinkHaCluster;

/// Whoever presses the tabulator does not wait for longer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What may stand at a place.
#[derive(Debug, PartialEq, Eq)]
pub enum WordPlace {
    /// One of these words, each with a description.
    Words(Vec<(String, String)>),
    /// The name of a cluster in this namespace, or in that of the context.
    Cluster(Option<String>),
}

/// Returns what may stand in the place of the last of these words.
pub fn place(words: &[String]) -> WordPlace {
    let command = PluginArguments::command();
    let (last, before) = words.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let is_flag = |word: &&String| word.starts_with('-');
    let subcommand = before.iter().find_map(|word| command.find_subcommand(word));
    let flags: Vec<&Arg> =
        subcommand.iter().flat_map(|one| one.get_arguments()).chain(command.get_arguments()).collect();
    let named = |word: &str| flags.iter().copied().find(|flag| is_named(flag, word));
    if let Some(flag) = before.last().and_then(|word| named(word)).filter(|flag| takes_value(flag)) {
        let values = flag.get_possible_values();
        return WordPlace::Words(begun(last, values.iter().map(|value| (value.get_name().to_owned(), String::new()))));
    }
    if last.starts_with('-') {
        let long = flags.iter().filter_map(|flag| Some((format!("--{}", flag.get_long()?), about(flag.get_help()))));
        return WordPlace::Words(begun(last, long));
    }
    let Some(subcommand) = subcommand else { return WordPlace::Words(begun(last, subcommands(&command))) };
    // Words that are neither flags nor their values: the subcommand, and its argument if it has been given.
    let value = |index: usize| index > 0 && named(&before[index - 1]).is_some_and(takes_value);
    let given = before.iter().enumerate().filter(|(index, word)| !is_flag(word) && !value(*index)).count();
    if given > 1 || subcommand.get_positionals().next().is_none() {
        return WordPlace::Words(Vec::new());
    }
    let of_flag = before.windows(2).rev().find(|pair| ["-n", "--namespace"].contains(&pair[0].as_str()));
    WordPlace::Cluster(of_flag.map(|pair| pair[1].clone()))
}

fn subcommands(command: &Command) -> impl Iterator<Item = (String, String)> {
    command.get_subcommands().map(|one| (one.get_name().to_owned(), about(one.get_about())))
}

fn about(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}

fn is_named(flag: &Arg, word: &str) -> bool {
    let is_long = flag.get_long().is_some_and(|long| word.strip_prefix("--") == Some(long));
    is_long || flag.get_short().is_some_and(|short| word.strip_prefix('-') == Some(short.to_string().as_str()))
}

fn takes_value(flag: &Arg) -> bool {
    !flag.is_positional() && flag.get_action().takes_values()
}

fn begun(last: &str, words: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    words.filter(|(word, _)| word.starts_with(last)).collect()
}

/// Returns the answer to kubectl.
pub async fn complete(words: &[String]) -> String {
    let last = words.last().map(String::as_str).unwrap_or_default();
    let found = match place(words) {
        WordPlace::Words(words) => words,
        WordPlace::Cluster(namespace) => {
            let names = timeout(TIMEOUT, clusters(namespace)).await.unwrap_or_default();
            begun(last, names.into_iter().map(|name| (name, String::new())))
        }
    };
    let line = |(word, about): &(String, String)| match about.as_str() {
        "" => format!("{}\n", plain(word)),
        about => format!("{}\t{}\n", plain(word), plain(about)),
    };
    found.iter().map(line).collect::<String>() + ":4\n"
}

/// The names of clusters; none if they cannot be read.
async fn clusters(of: Option<String>) -> Vec<String> {
    let namespace = of.filter(|of| namespace(of).is_ok());
    let arguments = AccessArguments { namespace, ..AccessArguments::default() };
    let Ok(access) = PluginAccess::of(&arguments, false).await else { return Vec::new() };
    let all = ListParams::default();
    let resources = access.list::<FlinkHaCluster>(Some(&access.namespace), &all).await.unwrap_or_default();
    resources.iter().filter_map(|resource| resource["metadata"]["name"].as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: &[&str]) -> WordPlace {
        place(&line.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    fn words(line: &[&str]) -> Vec<String> {
        match at(line) {
            WordPlace::Words(words) => words.into_iter().map(|(word, _)| word).collect(),
            other @ WordPlace::Cluster(_) => panic!("{line:?}: {other:?}"),
        }
    }

    #[test]
    fn each_place_has_its_words() {
        assert_eq!(words(&["s"]), ["status", "switchover", "suspend", "savepoint"]);
        assert_eq!(words(&["-n", "flink", "his"]), ["history"]);
        assert_eq!(words(&["status", "-o", ""]), ["json", "yaml"]);
        assert_eq!(words(&["switchover", "demo", "--ti"]), ["--timeout"]);
        assert!(words(&["status", "--k"]).contains(&"--kubeconfig".to_owned()));
        assert!(words(&["status", "-n", ""]).is_empty() && words(&["pause", "demo", ""]).is_empty());
        assert_eq!(at(&["status", ""]), WordPlace::Cluster(None));
        assert_eq!(at(&["status", "-o", "json", "d"]), WordPlace::Cluster(None));
        assert_eq!(at(&["-n", "flink", "inspect", ""]), WordPlace::Cluster(Some("flink".to_owned())));
        assert!(words(&[]).len() > 8);
    }
}
