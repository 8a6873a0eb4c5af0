package org.spikingbrain.app;

import android.Manifest;
import android.app.Activity;
import android.app.Notification;
import android.app.NotificationChannel;
import android.app.NotificationManager;
import android.app.PendingIntent;
import android.content.Context;
import android.content.Intent;
import android.content.pm.PackageManager;
import android.content.res.Configuration;
import android.graphics.Insets;
import android.os.Build;
import android.view.View;
import android.view.WindowInsets;
import android.view.WindowInsetsController;

/** All that Android has had since after 6.0, and this app uses: the rest compiles against the last android.jar that Debian has. */
final class Newer {
    private static final int LIGHT_BARS = WindowInsetsController.APPEARANCE_LIGHT_STATUS_BARS | WindowInsetsController.APPEARANCE_LIGHT_NAVIGATION_BARS;

    private Newer() {}

    // --- the foreground service

    static void createChannel(Context context, String channel, String name) {
        context.getSystemService(NotificationManager.class).createNotificationChannel(new NotificationChannel(channel, name, NotificationManager.IMPORTANCE_LOW));
    }

    /** Of a foreground service: shown at once, which Android 12 and newer delay by 10 seconds otherwise. */
    static Notification.Builder notification(Context context, String channel) {
        Notification.Builder out = new Notification.Builder(context, channel);
        return Build.VERSION.SDK_INT < Build.VERSION_CODES.S ? out : out.setForegroundServiceBehavior(Notification.FOREGROUND_SERVICE_IMMEDIATE);
    }

    static PendingIntent toForegroundService(Context context, int request, Intent intent) {
        return PendingIntent.getForegroundService(context, request, intent, PendingIntent.FLAG_IMMUTABLE);
    }

    static void startForegroundService(Context context, Intent service) {
        context.startForegroundService(service);
    }

    /** Android 13 and newer show a service's notification only with this; refused, the answer comes all the same. */
    static void askForNotifications(Activity screen, int request) {
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.TIRAMISU
            && screen.checkSelfPermission(Manifest.permission.POST_NOTIFICATIONS) != PackageManager.PERMISSION_GRANTED) {
            screen.requestPermissions(new String[] { Manifest.permission.POST_NOTIFICATIONS }, request);
        }
    }

    // --- the screen

    /** Android 15 and newer draw an app behind the bars and the keyboard: keep the content clear of them, and the bars' icons readable. */
    static void keepClear(Activity screen, View content) {
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.VANILLA_ICE_CREAM) {
            return;
        }
        content.setOnApplyWindowInsetsListener((view, insets) -> {
            Insets taken = insets.getInsets(WindowInsets.Type.systemBars() | WindowInsets.Type.displayCutout() | WindowInsets.Type.ime());
            view.setPadding(taken.left, taken.top, taken.right, taken.bottom);
            return insets;
        });
        boolean night = (screen.getResources().getConfiguration().uiMode & Configuration.UI_MODE_NIGHT_MASK) == Configuration.UI_MODE_NIGHT_YES;
        screen.getWindow().getInsetsController().setSystemBarsAppearance(night ? 0 : LIGHT_BARS, LIGHT_BARS);
    }

    // --- the machine

    /** The chip's name; null where Android does not tell. */
    static String chip() {
        return Build.VERSION.SDK_INT >= Build.VERSION_CODES.S ? Build.SOC_MODEL : null;
    }
}
