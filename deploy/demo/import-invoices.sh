#!/bin/sh
# A job in shell that fails, because its input is broken: reads invoices from a
# CSV file, and ends at the first amount that is no number.
set -eu
echo '{"progress":{"step":{"name":"Count","index":1,"count":2}}}'
total=$(($(wc -l <"$1") - 1))
echo "{\"log\":\"$total invoices to book\"}"
row=0
sum=0
{
    read -r _header
    while IFS=, read -r number customer cents; do
        row=$((row + 1))
        case $cents in
        '' | *[!0-9]*)
            echo "row $row (invoice $number, $customer): \"$cents\" is not an amount in cents" >&2
            exit 3
            ;;
        esac
        sum=$((sum + cents))
        done="\"done\":$row,\"total\":$total,\"unit\":\"invoices\""
        echo "{\"progress\":{\"step\":{\"name\":\"Book\",\"index\":2,\"count\":2,$done,\"message\":\"invoice $number\"}}}"
        echo "{\"log\":\"invoice $number of $customer: $cents cents\"}"
        # As long as a ledger takes to book one.
        sleep 0.3
    done
} <"$1"
echo "{\"invoices\":$row,\"cents\":$sum}"
