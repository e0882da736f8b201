//! Characters one by one: of what kind they are, and which of them differ in case alone.

use bson::{Document, doc};

use crate::generate::Case;
use crate::sides::{self, Outcome, Server};
use crate::{BATCH, deliberate, setting, shown};

/// The general categories, and the other properties that patterns may ask for.
const PROPERTIES: [&str; 35] = [
    "Cc", "Cf", "Cn", "Co", "Cs", "Ll", "Lm", "Lo", "Lt", "Lu", "L&", "Mc", "Me", "Mn", "Nd", "Nl",
    "No", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "Sc", "Sk", "Sm", "So", "Zl", "Zp", "Zs",
    "Any", "Xan", "Xps", "Xsp",
];

/// What is asked about one character: its properties, and whether case hides it from its relatives.
fn cases(character: char) -> [Case; 2] {
    let text = character.to_string();
    let case =
        |state, pulls: Document| Case { state, patch: doc! {"$pull": pulls}, filters: Vec::new() };
    let properties = case(
        PROPERTIES.iter().map(|name| ((*name).to_owned(), vec![text.clone()].into())).collect(),
        PROPERTIES
            .iter()
            .map(|name| ((*name).to_owned(), doc! {"$regex": format!("\\p{{{name}}}")}.into()))
            .collect(),
    );
    let mut relatives = vec![text.clone()];
    for relative in [text.to_uppercase(), text.to_lowercase()] {
        relatives.extend(
            relative
                .chars()
                .flat_map(|found| [found.to_string(), found.to_lowercase().to_string()]),
        );
    }
    let pattern = format!("^\\x{{{:x}}}$", u32::from(character));
    let folded = case(doc! {"a": relatives}, doc! {"a": {"$regex": pattern, "$options": "i"}});
    [properties, folded]
}

/// With `ALLUVIUM_CHARACTERS=1` every character there is, otherwise one of so many.
#[tokio::test]
async fn what_is_said_of_a_character_is_what_the_server_says_or_refused() {
    let mut server = Server::start().await;
    let one_of = usize::try_from(setting("ALLUVIUM_CHARACTERS", 1_009)).unwrap();
    let characters: Vec<char> = ('\u{1}'..=char::MAX).step_by(one_of).collect();
    let (mut equal, mut refused) = (0, 0);
    let mut wrong = Vec::new();
    for characters in characters.chunks(BATCH / 2) {
        let cases: Vec<Case> = characters.iter().flat_map(|character| cases(*character)).collect();
        for (case, theirs) in cases.iter().zip(server.outcomes(&cases).await) {
            let ours = sides::ours(case);
            if deliberate::agrees(case, &ours, &theirs) {
                equal += 1;
            } else if matches!(ours, Outcome::Refused(_)) {
                refused += 1;
            } else {
                wrong.push(format!(
                    "{:?}\n  ours   {}\n  theirs {}",
                    case.state,
                    shown(&ours),
                    shown(&theirs)
                ));
            }
        }
    }
    let told = format!("{equal} equal, {refused} refused");
    println!("{told}");
    assert!(wrong.is_empty(), "{told}, {} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(equal > 10 * refused, "{told}");
}
