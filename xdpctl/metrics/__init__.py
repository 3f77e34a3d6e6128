"""What monitoring systems read: numbers of every interface, under names that stay."""
