/// A rule of cleaning, by which its applications are counted.
public enum CleaningRule: String, CaseIterable, Sendable, Codable {
    /// Records dropped for bytes that are no UTF-8.
    case invalidEncoding = "invalid_encoding"
    /// Records changed by normalisation.
    case normalized
    /// Characters removed: controls, invisible ones, private use.
    case controlCharacters = "control_characters"
    /// Records whose white space or long runs were shortened.
    case whitespace
    /// URLs replaced.
    case url
    /// Keys and access tokens replaced.
    case key
    /// E-mail addresses replaced.
    case email
    /// International bank account numbers replaced.
    case iban
    /// Identity numbers replaced.
    case id
    /// Payment cards replaced.
    case card
    /// Telephone numbers replaced.
    case phone
    /// Network addresses replaced.
    case ip
    /// Other long numbers replaced.
    case number
    /// Records dropped because they are too short.
    case tooShort = "too_short"
    /// Records split because they were too long.
    case split
    /// Records dropped for too few letters.
    case fewLetters = "few_letters"
    /// Records dropped for too many digits.
    case manyDigits = "many_digits"
    /// Records dropped for too many symbols.
    case manySymbols = "many_symbols"
    /// Records dropped for words that are too short or too long on average.
    case wordLength = "word_length"
    /// Records dropped because they repeat themselves.
    case repetition
    /// Records dropped for their language.
    case language
    /// Exact duplicates dropped.
    case duplicate
    /// Near duplicates dropped.
    case nearDuplicate = "near_duplicate"
}

/// The result of cleaning: the clean records, and how often each rule applied.
public struct CleaningResult: Equatable, Sendable {
    /// The clean records, in order.
    public var records: [String] = []
    /// How often each rule applied; rules that did not apply are missing.
    public var counts: [CleaningRule: Int] = [:]
}
