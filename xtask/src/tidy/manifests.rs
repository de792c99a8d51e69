//! Rules of the Cargo manifests: which crate may depend on which, shared lints, shared versions.

use toml::Table;

use super::Finding;
use super::tree::{File, Tree};

/// Who may depend on whom: a member's folder, and the members it may name. A crate may name whatever those below it
/// may, so each row holds everything underneath. `runtime` and `lang` never know each other: compiled kernels pass
/// between them as source and as data.
const DIRECTIONS: &[(&str, Allowed)] = &[
    ("crates/ops", Allowed::Only(&[])),
    ("crates/runtime", Allowed::Only(&["ops"])),
    ("crates/lang", Allowed::Only(&["ops"])),
    ("crates/kernels", Allowed::Only(&["ops", "runtime"])),
    ("crates/jit", Allowed::Only(&["ops", "runtime", "lang", "kernels"])),
    ("crates/tensor", Allowed::Only(&["ops", "runtime", "lang", "kernels"])),
    ("crates/launch", Allowed::Only(&["ops", "runtime", "lang", "kernels", "jit", "tensor"])),
    ("crates/nn", Allowed::Only(&["ops", "runtime", "lang", "kernels", "tensor"])),
    ("crates/dataset", Allowed::Only(&["ops", "runtime", "lang"])),
    ("crates/synth", Allowed::Only(&["ops", "runtime", "lang", "kernels", "tensor"])),
    ("crates/cli", Allowed::Anything),
    ("crates/python", Allowed::Anything),
    ("benches/worker", Allowed::Anything),
    ("tests", Allowed::Anything),
    ("examples", Allowed::Anything),
    ("xtask", Allowed::Only(&[])),
];

/// The members that one may depend on.
#[derive(Clone, Copy)]
enum Allowed {
    Anything,
    /// Folders in `crates/`.
    Only(&'static [&'static str]),
}

/// A member's manifest, parsed.
struct Manifest<'a> {
    file: &'a File,
    folder: &'a str,
    table: Table,
}

/// One entry of a dependency table.
struct Dependency<'a> {
    name: &'a str,
    value: &'a toml::Value,
}

/// The manifests of the workspace's members, and findings for those that don't parse. Folders with a `[workspace]` of
/// their own (the root, and peers of the benchmark) are no members.
fn members(tree: &Tree) -> (Vec<Manifest<'_>>, Vec<Finding>) {
    let mut manifests = Vec::new();
    let mut findings = Vec::new();
    for file in &tree.files {
        let Some(folder) = file.path.strip_suffix("/Cargo.toml") else { continue };
        match file.text.parse::<Table>() {
            Ok(table) if table.contains_key("workspace") => {}
            Ok(table) => manifests.push(Manifest { file, folder, table }),
            Err(error) => findings.push(Finding::new(&file.path, 1, error.message(), "repair the TOML")),
        }
    }
    (manifests, findings)
}

impl Manifest<'_> {
    /// Every dependency: normal, build, dev, and those of one target only.
    fn dependencies(&self) -> Vec<Dependency<'_>> {
        let targets = self.table.get("target").and_then(|value| value.as_table());
        let tables =
            targets.into_iter().flat_map(|table| table.values().filter_map(|value| value.as_table()));
        let kinds = ["dependencies", "build-dependencies", "dev-dependencies"];
        tables
            .chain([&self.table])
            .flat_map(|table| kinds.iter().filter_map(|kind| table.get(*kind)?.as_table()))
            .flat_map(|table| table.iter().map(|(name, value)| Dependency { name, value }))
            .collect()
    }

    fn finding(&self, line_prefix: &str, message: String, fix: &str) -> Finding {
        Finding::new(&self.file.path, self.file.line_starting(line_prefix), message, fix)
    }
}

/// Crates depend downwards only, as [`DIRECTIONS`] says.
pub(super) fn direction(tree: &Tree) -> Vec<Finding> {
    let (manifests, mut findings) = members(tree);
    for manifest in &manifests {
        let Some((_, allowed)) = DIRECTIONS.iter().find(|(folder, _)| *folder == manifest.folder) else {
            let message = format!("`{}` has no place in the order of the crates", manifest.folder);
            findings.push(manifest.finding(
                "name",
                message,
                "add it to DIRECTIONS in xtask/src/tidy/manifests.rs",
            ));
            continue;
        };
        let Allowed::Only(allowed) = allowed else { continue };
        for dependency in manifest.dependencies() {
            let Some(short) = member_name(dependency.name) else { continue };
            if !allowed.contains(&short) {
                let message = format!("{} must not depend on {}", manifest.folder, dependency.name);
                let fix = "move the code down, or pass what is needed as an argument";
                findings.push(manifest.finding(dependency.name, message, fix));
            }
        }
    }
    findings
}

/// The folder in `crates/` of a package, if the package is one of ours.
fn member_name(package: &str) -> Option<&str> {
    match package {
        "bullet" => Some("cli"),
        _ => package.strip_prefix("bullet-"),
    }
}

/// Every member has `[lints] workspace = true`.
pub(super) fn lints(tree: &Tree) -> Vec<Finding> {
    let (manifests, _) = members(tree);
    let inherits = |manifest: &&Manifest<'_>| {
        let lints = manifest.table.get("lints").and_then(|lints| lints.get("workspace"));
        lints.and_then(|value| value.as_bool()) == Some(true)
    };
    let lacking = manifests.iter().filter(|manifest| !inherits(manifest));
    lacking
        .map(|manifest| {
            let message = format!("{} does not inherit the workspace's lints", manifest.folder);
            manifest.finding("[lints]", message, "add `[lints]` with `workspace = true`")
        })
        .collect()
}

/// Members take every dependency from the root manifest: `name.workspace = true`.
pub(super) fn versions(tree: &Tree) -> Vec<Finding> {
    let (manifests, _) = members(tree);
    let mut findings = Vec::new();
    for manifest in &manifests {
        for Dependency { name, value } in manifest.dependencies() {
            let inherited = value.get("workspace").and_then(|value| value.as_bool()) == Some(true);
            if !inherited {
                let fix = "put the version under [workspace.dependencies] and write `workspace = true` here";
                findings.push(manifest.finding(name, format!("`{name}` chooses its own version"), fix));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINTS: &str = "[lints]\nworkspace = true\n";

    fn messages(findings: &[Finding]) -> Vec<(usize, &str)> {
        findings.iter().map(|finding| (finding.line, finding.message.as_str())).collect()
    }

    #[test]
    fn a_dependency_upwards_is_found_where_it_stands() {
        let manifest = "[package]\nname = \"bullet-ops\"\n[dependencies]\nhalf.workspace = true\n\
            bullet-runtime.workspace = true\n";
        let findings = direction(&Tree::of(&[("crates/ops/Cargo.toml", manifest)]));
        assert_eq!(messages(&findings), [(5, "crates/ops must not depend on bullet-runtime")]);
    }

    #[test]
    fn siblings_dev_and_target_dependencies_count_too() {
        let manifest = "[dev-dependencies]\nbullet-lang.workspace = true\n\
            [target.'cfg(unix)'.dependencies]\nbullet-kernels.workspace = true\n\
            [build-dependencies]\nbullet.workspace = true\n";
        let findings = direction(&Tree::of(&[("crates/runtime/Cargo.toml", manifest)]));
        assert_eq!(findings.len(), 3, "{findings:?}");
    }

    #[test]
    fn dependencies_downwards_are_allowed() {
        let kernels = "[dependencies]\nbullet-ops.workspace = true\nbullet-runtime.workspace = true\n";
        let cli = "[dependencies]\nbullet-nn.workspace = true\nbullet-synth.workspace = true\n";
        let tree = Tree::of(&[("crates/kernels/Cargo.toml", kernels), ("crates/cli/Cargo.toml", cli)]);
        assert_eq!(direction(&tree), []);
    }

    #[test]
    fn a_crate_without_a_place_is_found() {
        let findings =
            direction(&Tree::of(&[("crates/new/Cargo.toml", "[package]\nname = \"bullet-new\"\n")]));
        assert_eq!(messages(&findings), [(2, "`crates/new` has no place in the order of the crates")]);
    }

    #[test]
    fn nested_workspaces_are_no_members() {
        let peer = "[workspace]\n[dependencies]\ncandle-core = \"1\"\n";
        let tree = Tree::of(&[("benches/peers/candle/Cargo.toml", peer), ("Cargo.toml", "[workspace]\n")]);
        assert_eq!((direction(&tree), lints(&tree), versions(&tree)), (vec![], vec![], vec![]));
    }

    #[test]
    fn a_crate_must_inherit_the_lints() {
        let tree = Tree::of(&[
            ("crates/ops/Cargo.toml", "[package]\n"),
            ("crates/nn/Cargo.toml", LINTS),
            ("crates/cli/Cargo.toml", "[package]\n[lints]\nworkspace = false\n"),
        ]);
        let found: Vec<_> = lints(&tree).into_iter().map(|finding| (finding.path, finding.line)).collect();
        assert_eq!(found, [("crates/ops/Cargo.toml".into(), 1), ("crates/cli/Cargo.toml".into(), 2)]);
    }

    #[test]
    fn own_versions_are_found() {
        let manifest = "[dependencies]\nhalf.workspace = true\nrayon = \"1\"\n\
            gemm = { version = \"0.19\", features = [] }\nserde = { workspace = true, features = [\"derive\"] }\n";
        let findings = versions(&Tree::of(&[("crates/nn/Cargo.toml", manifest)]));
        let mut lines: Vec<_> = findings.iter().map(|finding| finding.line).collect();
        lines.sort();
        assert_eq!(lines, [3, 4]);
    }

    #[test]
    fn a_broken_manifest_is_a_finding() {
        assert_eq!(direction(&Tree::of(&[("crates/ops/Cargo.toml", "[package\n")])).len(), 1);
    }

    #[test]
    fn the_table_has_no_cycle() {
        for (folder, allowed) in DIRECTIONS {
            let (Allowed::Only(below), Some(short)) = (allowed, folder.strip_prefix("crates/")) else {
                continue;
            };
            for lower in *below {
                let row = DIRECTIONS.iter().find(|(other, _)| other.strip_prefix("crates/") == Some(lower));
                let Some((_, Allowed::Only(under))) = row else { panic!("{folder} may depend on {lower}") };
                assert!(!under.contains(&short), "{folder} and {lower} may depend on each other");
                assert!(
                    under.iter().all(|crate_| below.contains(crate_)),
                    "{folder} lacks what {lower} may use"
                );
            }
        }
    }
}
