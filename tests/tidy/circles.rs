//! Circles of imports: among the modules of `src`, and among the files and folders of one folder. A folder's own `mod.rs`
//! is left out there, since it is what the others hang from.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Source, line_of};

/// Who names whom in one folder, and where first.
type Edges = BTreeMap<String, BTreeMap<String, String>>;

/// Each circle, as the steps that lead around it.
pub(super) fn circles(files: &[Source]) -> Vec<String> {
    let mut folders: BTreeMap<String, Edges> = BTreeMap::new();
    let modules: BTreeSet<Vec<String>> = files.iter().map(module).collect();
    for file in files {
        let from = module(file);
        for (line, to) in paths(file, &from) {
            // The first place where the two part; a name that is no module there is an item of the folder's own.
            let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            let (Some(here), Some(there)) = (from.get(common), to.get(common)) else { continue };
            let target = &to[..=common];
            if !modules.iter().any(|module| module.starts_with(target)) {
                continue;
            }
            let folder = ["src"].into_iter().chain(from[..common].iter().map(String::as_str));
            let folder = folder.collect::<Vec<_>>().join("/");
            let edges = folders.entry(folder).or_default().entry(here.clone()).or_default();
            edges.entry(there.clone()).or_insert(format!("{}:{line}", file.path));
        }
    }
    folders.iter().flat_map(|(folder, edges)| in_folder(folder, edges)).collect()
}

/// The names that lead to a file from the root: `src/a/b.rs` and `src/a/b/mod.rs` are both `a`, `b`.
fn module(file: &Source) -> Vec<String> {
    let path = file.path.trim_start_matches("src/").trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    path.split('/').filter(|name| !["lib", "main"].contains(name)).map(str::to_owned).collect()
}

/// Every path that a file names outside its tests, from the root, each with its line.
fn paths(file: &Source, from: &[String]) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    for (root, is_crate) in [("crate::", true), ("super::", false)] {
        for (at, _) in file.code.match_indices(root) {
            let line = line_of(&file.code, at);
            if file.is_test[line - 1] || file.code[..at].ends_with("::") {
                continue;
            }
            let mut rest = &file.code[at + root.len()..];
            let mut base = if is_crate { &from[..0] } else { up(from) };
            while let Some(further) = rest.strip_prefix("super::") {
                (rest, base) = (further, up(base));
            }
            expand(rest, base.to_vec(), &mut |path| found.push((line, path)));
        }
    }
    found
}

fn up(module: &[String]) -> &[String] {
    &module[..module.len().saturating_sub(1)]
}

/// Every path of a tree of imports that begins here, without the last names of groups.
fn expand(tree: &str, mut path: Vec<String>, found: &mut impl FnMut(Vec<String>)) -> usize {
    let mut at = 0;
    loop {
        at += tree[at..].len() - tree[at..].trim_start().len();
        if tree[at..].starts_with('{') {
            at += 1;
            while !tree[at..].trim_start().starts_with('}') && at < tree.len() {
                at += expand(&tree[at..], path.clone(), found);
                at += tree[at..].find([',', '}']).unwrap_or(tree.len() - at);
                at += usize::from(tree[at..].starts_with(','));
            }
            return (at + tree[at..].find('}').map_or(0, |end| end + 1)).min(tree.len());
        }
        let name: String = tree[at..].chars().take_while(|c| crate::source::is_word(*c)).collect();
        at += name.len();
        path.push(name);
        match tree[at..].strip_prefix("::") {
            Some(_) => at += 2,
            None => {
                found(path);
                return at;
            }
        }
    }
}

/// The shortest circle through each module that is in one, told once.
fn in_folder(folder: &str, edges: &Edges) -> Vec<String> {
    let mut told: BTreeSet<BTreeSet<&str>> = BTreeSet::new();
    let mut findings = Vec::new();
    for start in edges.keys() {
        let Some(circle) = circle(start, edges) else { continue };
        if told.insert(circle.iter().copied().collect()) {
            let next = circle.iter().skip(1).chain(circle.first());
            let steps =
                circle.iter().zip(next).map(|(a, b)| format!("{a} -> {b} ({})", edges[*a][*b]));
            findings.push(format!("{folder}: {}", steps.collect::<Vec<_>>().join(", ")));
        }
    }
    findings
}

fn circle<'e>(start: &'e str, edges: &'e Edges) -> Option<Vec<&'e str>> {
    let mut ways = vec![vec![start]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut further = Vec::new();
        for way in ways {
            let last = way[way.len() - 1];
            for next in edges.get(last).into_iter().flat_map(BTreeMap::keys) {
                if next == start {
                    return Some(way);
                }
                if seen.insert(next.as_str()) {
                    further.push(way.iter().copied().chain([next.as_str()]).collect());
                }
            }
        }
        ways = further;
    }
    None
}
