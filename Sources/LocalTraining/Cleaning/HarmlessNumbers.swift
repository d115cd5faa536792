/// Finds numbers that identify nobody: dates, times, years and amounts.
enum HarmlessNumbers {
    /// For each scalar, whether it is a digit of such a number.
    ///
    /// - Parameter scalars: Folded as ``DigitText`` does.
    /// - Returns: As many marks as scalars.
    static func marks(in scalars: [Unicode.Scalar]) -> [Bool] {
        var marks = [Bool](repeating: false, count: scalars.count)
        let reader = Reader(scalars: scalars)
        var index = 0
        while index < scalars.count {
            guard reader.isDigit(index) else {
                index += 1
                continue
            }
            // No such number begins inside a run of digits.
            let end =
                reader.date(index) ?? reader.time(index) ?? reader.timestamp(index) ?? reader.years(index)
                ?? reader.amount(index)
            if let end {
                for place in index..<end where reader.isDigit(place) { marks[place] = true }
                index = end
            } else {
                while reader.isDigit(index) { index += 1 }
            }
        }
        return marks
    }

    private struct Reader {
        let scalars: [Unicode.Scalar]

        func isDigit(_ index: Int) -> Bool {
            index >= 0 && index < scalars.count && (0x30...0x39).contains(scalars[index].value)
        }

        func at(_ index: Int) -> Unicode.Scalar? { index >= 0 && index < scalars.count ? scalars[index] : nil }

        func isHyphen(_ index: Int) -> Bool { at(index) == "-" }

        /// The end of the run of digits that begins here, and its value; a run of more than nine digits has no value.
        func run(_ start: Int) -> (end: Int, count: Int, value: Int) {
            var (end, value) = (start, 0)
            while isDigit(end) {
                if end - start < 9 { value = value * 10 + Int(scalars[end].value) - 0x30 }
                end += 1
            }
            return (end, end - start, value)
        }

        /// 2024-01-15, 15.01.2024, 1/15/24, 2024年1月15日: three numbers between equal marks that are a date of the calendar.
        func date(_ start: Int) -> Int? {
            let first = run(start)
            guard let mark = at(first.end), "-./".unicodeScalars.contains(mark) else { return nil }
            let second = run(first.end + 1)
            guard second.count > 0, at(second.end) == mark else { return nil }
            let third = run(second.end + 1)
            guard third.count > 0, !goesOn(third.end, mark) else { return nil }
            let isYear = { (part: (end: Int, count: Int, value: Int)) in
                part.count == 4 && (1300...2199).contains(part.value)
            }
            let isShort = { (part: (end: Int, count: Int, value: Int)) in part.count <= 2 && part.value >= 1 }
            if isYear(first), isShort(second), isShort(third), second.value <= 12, third.value <= 31 {
                return third.end
            }
            guard isShort(first), isShort(second), isYear(third) || (third.count == 2 && mark != "-") else {
                return nil
            }
            return min(first.value, second.value) <= 12 && max(first.value, second.value) <= 31 ? third.end : nil
        }

        private func goesOn(_ end: Int, _ mark: Unicode.Scalar) -> Bool { at(end) == mark && isDigit(end + 1) }

        /// 12:30, 12:30:45.
        func time(_ start: Int) -> Int? {
            let hour = run(start)
            guard hour.count <= 2, hour.value < 25, at(hour.end) == ":", at(start - 1) != ":" else { return nil }
            let minute = run(hour.end + 1)
            guard minute.count == 2, minute.value < 60 else { return nil }
            guard at(minute.end) == ":" else { return minute.end }
            let second = run(minute.end + 1)
            guard second.count == 2, second.value < 61, at(second.end) != ":" else { return nil }
            return second.end
        }

        /// 202401151230 and 20240115123000.
        func timestamp(_ start: Int) -> Int? {
            let end = run(start).end
            guard end - start == 12 || end - start == 14 else { return nil }
            func part(_ offset: Int, _ count: Int) -> Int {
                scalars[(start + offset)..<(start + offset + count)].reduce(0) { $0 * 10 + Int($1.value) - 0x30 }
            }
            let isDay = DigitText.isDate(year: part(0, 4), month: part(4, 2), day: part(6, 2))
            let isTime = part(8, 2) < 24 && part(10, 2) < 60 && (end - start == 12 || part(12, 2) < 61)
            return isDay && (1970...2099).contains(part(0, 4)) && isTime ? end : nil
        }

        /// 2019 2020 2021, 1914-1918: two or more years, without another number beside them.
        func years(_ start: Int) -> Int? {
            var end = start
            var count = 0
            var index = start
            while true {
                let part = run(index)
                guard part.count == 4, (1500...2100).contains(part.value) else { break }
                count += 1
                end = part.end
                guard at(end) == " " || isHyphen(end) else { break }
                index = end + 1
            }
            guard count >= 2 else { return nil }
            // With another group of digits behind them they are part of a longer number.
            return (at(end) == " " || isHyphen(end)) && isDigit(end + 1) ? nil : end
        }

        /// 1 250 000, 1 250 000,50 €, $1000000000: groups of three digits, a currency beside it, or six zeros at the end.
        func amount(_ start: Int) -> Int? {
            guard at(start) != "0", !isHyphen(start - 1) else { return nil }
            let first = run(start)
            var (end, groups) = (first.end, 1)
            while first.count <= 3, let separator = at(end), " ,.'".unicodeScalars.contains(separator) {
                let next = run(end + 1)
                guard next.count == 3 else { break }
                (end, groups) = (next.end, groups + 1)
            }
            guard !((at(end) == " " || isHyphen(end)) && isDigit(end + 1)) else { return nil }
            let zeros = (start..<end).reversed().prefix { scalars[$0] == "0" || !isDigit($0) }.count(where: isDigit)
            if zeros >= 6 { return end }
            let isGrouped = groups >= 3 && (first.count < 3 || zeros >= 3)
            let hasCurrency = isCurrency(before: start) || isCurrency(after: end)
            return isGrouped || (hasCurrency && (groups > 1 || first.count == end - start)) ? end : nil
        }

        private func isCurrency(before start: Int) -> Bool {
            let index = at(start - 1) == " " ? start - 2 : start - 1
            return at(index)?.properties.generalCategory == .currencySymbol
        }

        private func isCurrency(after end: Int) -> Bool {
            var index = end
            if at(index) == "," || at(index) == ".", isDigit(index + 1) { index = run(index + 1).end }
            if at(index) == " " { index += 1 }
            guard let scalar = at(index) else { return false }
            if scalar.properties.generalCategory == .currencySymbol { return true }
            return Self.words.contains { word in
                word.indices.allSatisfy { at(index + $0) == word[$0] }
            }
        }

        private static let words: [[Unicode.Scalar]] = [
            "EUR", "USD", "GBP", "CHF", "JPY", "CNY", "INR", "RUB", "BRL", "euro", "dollar", "dólar", "dollár", "pound",
            "peso",
            "руб", "元", "块", "塊", "円", "원", "ريال", "دولار", "درهم", "جنيه", "रुपये", "रुपए", "บาท", "reais", "real",
            "yuan",
            "yen", "won",
        ].map { Array($0.unicodeScalars) }
    }
}
