/// A part of a list, and where the next part begins.
package struct Listing<Item: Sendable>: Sendable {
    package var items: [Item]
    /// What to give as the cursor to get what follows; `nil` at the end.
    package var next: Int?

    package init(items: [Item], next: Int?) {
        self.items = items
        self.next = next
    }

    /// The part of an ordered list that begins at a place, which is the cursor.
    ///
    /// A cursor beyond the end of a list that has shrunk gives the end.
    package init(_ all: some RandomAccessCollection<Item>, from cursor: Int, limit: Int) {
        let start = Swift.min(Swift.max(0, cursor), all.count)
        let page = all.dropFirst(start).prefix(limit)
        items = Array(page)
        next = start + page.count < all.count ? start + page.count : nil
    }
}

extension Listing: RandomAccessCollection {
    package var startIndex: Int { items.startIndex }
    package var endIndex: Int { items.endIndex }
    package subscript(index: Int) -> Item { items[index] }
}
