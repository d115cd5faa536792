/// What ``TextCleaner`` does with a device's records.
public struct CleaningOptions: Equatable, Sendable {
    /// The language wanted, as `en` or `zh`; `nil` takes all.
    public var language: String?
    /// Whether records whose language cannot be told are kept.
    public var keepsUndetermined: Bool
    /// Characters of a record, at least; shorter ones are dropped.
    public var minimumLength: Int
    /// Characters of a record, at most; longer ones are split at the ends of sentences.
    public var maximumLength: Int
    /// Whether personal data are replaced.
    public var redacts: Bool
    /// Whether exact and near duplicates are dropped.
    public var removesDuplicates: Bool

    /// Creates options; the defaults are those of the specification.
    public init(
        language: String? = nil,
        keepsUndetermined: Bool = true,
        minimumLength: Int = 4,
        maximumLength: Int = 2000,
        redacts: Bool = true,
        removesDuplicates: Bool = true
    ) {
        self.language = language
        self.keepsUndetermined = keepsUndetermined
        self.minimumLength = minimumLength
        self.maximumLength = maximumLength
        self.redacts = redacts
        self.removesDuplicates = removesDuplicates
    }
}

/// A rule of cleaning, as it is counted.
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

/// What cleaning left, and how often each rule applied.
public struct CleaningResult: Equatable, Sendable {
    /// The clean records, in order.
    public var records: [String] = []
    /// How often each rule applied; rules that did not are missing.
    public var counts: [CleaningRule: Int] = [:]
}
