/// What a text cleaner does with a device's records.
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
