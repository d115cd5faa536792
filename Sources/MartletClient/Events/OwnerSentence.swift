import StrictJSON

/// A sentence for the device's owner.
///
/// Trainers and readers quote what a server sent: the text is escaped when the value is made, and there is no other text in one.
struct OwnerSentence: Equatable, Sendable {
    let text: String

    init(_ text: String) { self.text = PrintableText.escaped(text) }
}
